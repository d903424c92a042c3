use clap::CommandFactory as _;

use super::*;

fn exit_code(line: &str) -> i32 {
    Cli::try_parse_from(line.split(' ')).map_or_else(|error| error.exit_code(), |_| 0)
}

#[test]
fn the_definitions_are_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_task_is_understood() {
    let lines = [
        "tasks boot --port 4000 --memory --routing fingers",
        "tasks boot --lab --id 00,80",
        "tasks killall --keep-data",
        "tasks reboot --json",
        "tasks add --port 4001 --name x",
        "tasks addmany 10 --state /tmp/s.json",
        "tasks join [::1]:4000",
        "tasks leave node-1",
        "tasks start --all",
        "tasks start node-1",
        "tasks logs node-1 -f -n 5",
        "tasks store value --key k --via node-1",
        "tasks storemany 5 --lipsum f",
        "tasks lookup value --trace --mode linear",
        "tasks lookup --key k",
        "tasks delete --key k",
        "tasks put k v --content-type text/html --if-absent",
        "tasks put k -",
        "tasks put k --file -",
        "tasks get k --via node-1",
        "tasks cas k old new",
        "tasks export - --state s",
        "tasks export all.ndjson --resume",
        "tasks import all.ndjson --resume",
        "tasks monitor --interval 500ms --once",
        "tasks doctor --only ring",
        "tasks doctor --only ring --watch --interval 500ms",
        "tasks doctor --wait 5s",
        "tasks --json doctor --watch",
        "tasks --json list",
        "tasks manage",
        "tasks manage --host_address ::1 --host_port 0 --external_address boot.example --pool 3 --check-interval 500ms",
        "tasks manage --host-port 5001 --in-process --bootstrap http://h:5000/return_dht_address,h:1 --data-dir d",
        "tasks boot --replication-factor all",
        "tasks completions bash",
    ];
    for line in lines {
        assert_eq!(exit_code(line), 0, "{line}");
    }
}

#[test]
fn nonsense_is_a_usage_error() {
    let lines = [
        "tasks",
        "tasks fly",
        "tasks boot --port 70000",
        "tasks boot --id 00",
        "tasks addmany 0",
        "tasks addmany -1",
        "tasks storemany x",
        "tasks join 4000",
        "tasks start",
        "tasks start node-1 --all",
        "tasks lookup",
        "tasks lookup a --key b",
        "tasks put k",
        "tasks put k v --file f",
        "tasks cas k old",
        "tasks get",
        "tasks export",
        "tasks monitor --interval 0",
        "tasks manage --pool 0",
        "tasks manage --pool -1",
        "tasks manage --pool 100000",
        "tasks manage --check-interval 0",
        "tasks manage --check-interval -1s",
        "tasks manage --check-interval soon",
        "tasks manage --host-port 70000",
        "tasks manage --host-address a:1",
        "tasks monitor --interval -1",
        "tasks logs node-1 -f --json",
        "tasks doctor --watch --wait 5s",
        "tasks doctor --interval 2s",
        "tasks doctor --watch --interval 0",
    ];
    for line in lines {
        assert_eq!(exit_code(line), 2, "{line}");
    }
}
