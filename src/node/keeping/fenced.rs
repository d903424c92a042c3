//! The content of a view that was pushed aside by force. It may be newer or older than what is served now, and nobody can tell:
//! it goes to a file in the data directory, and is never merged.

use chordal_protocol::replica::Area;

use super::Work;

impl Work {
    /// Content that belongs to no view which is held here any more was fenced, by now or just before this node ended. What could not
    /// be written stays in the store until the next start.
    pub(super) fn put_fenced_aside(&mut self) {
        let areas = match self.store.areas() {
            Ok(areas) => areas,
            Err(error) => {
                tracing::error!(%error, "content that was pushed aside could not be looked for");
                return;
            }
        };
        let held = &self.keeper.replica().durable().held;
        let fenced = areas.into_iter().filter(|area| matches!(area, Area::View(name) if !held.contains_key(name)));
        for area in fenced {
            let Area::View(name) = area else { continue };
            let file = format!("fenced-{}-{}-{}.ndjson", name.range.lo.short(), name.range.hi.short(), name.epoch);
            match self.store.put_aside(&area, &file) {
                Ok(Some((path, values))) => {
                    let file = path.display();
                    tracing::error!(%file, values, "what this node kept was pushed aside by force: it is in that file now");
                    self.put_aside.push(area);
                }
                Ok(None) => {
                    tracing::error!("what this node kept in memory was pushed aside by force, and is gone");
                    self.put_aside.push(area);
                }
                Err(error) => tracing::error!(%error, "what was pushed aside by force stays in the store"),
            }
        }
    }
}
