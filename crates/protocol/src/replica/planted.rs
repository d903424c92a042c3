//! Bugs to order, so that a model and a simulator can show that they would notice.

/// A rule that is left out. Each is one that loses or stales an acknowledged value. A machine has one only if it was made with
/// [`super::Settings::planted`], which nothing but tests and simulators may call; a test looks after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// Who adopts a value merges and stages anew under its own ballot (rule 4).
    MergeAgain,
    /// Votes are asked for before anything is staged (rule 5).
    AcceptBeforeStage,
    /// A vote does not raise the promise (rule 6).
    AcceptWithoutSealing,
    /// Members keep their own newer records when they install (rule 7).
    KeepOwnRecords,
    /// Members lay what stands upon their own content, although they lack some of what that is taken for (rule 14).
    LayUponAnything,
    /// Members promise, vote and store before they have installed (rule 8).
    SpeakBeforeInstall,
    /// A restarted primary goes on in its epoch (rule 10).
    RestartedPrimaryServes,
    /// A read counts confirmations that were asked for before it came (rule 11).
    OldConfirmation,
    /// A read needs no confirmation (rule 11).
    UnconfirmedRead,
    /// A sealed member confirms (rule 11).
    ConfirmWhenSealed,
    /// A sealed member stores (rule 3).
    StoreWhenSealed,
    /// A register is read while a write of it is unknown (rule 12).
    ReadPending,
    /// Outcomes of requests are not staged (rule 13).
    OutcomesStayBehind,
    /// Outcomes are forgotten, and no mark says so (rule 13).
    PurgeWithoutMark,
    /// Tombstones are collected when a majority has them (rule 15).
    CollectAtMajority,
    /// Writes at or below the stable mark are stored (rule 15).
    NoFloor,
    /// A frozen view thaws without the decision that it waits for.
    ThawFreely,
    /// When a decision is forgotten, nothing remains of it (rule 9).
    ForgetWithoutTrace,
    /// A write is acknowledged when the primary has it.
    AcknowledgeByMinority,
    /// One promise is enough.
    PrepareByMinority,
    /// The stable mark goes on while content is sent ahead (rule 15).
    MarkNotHeld,
    /// What was sent ahead for one proposal serves another one (rule 4).
    CopyOfAnyBallot,
    /// What was sent ahead counts without what was written since (rule 5).
    CopyWithoutTail,
}
