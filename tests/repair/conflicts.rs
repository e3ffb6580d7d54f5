//! An old catalog was put back and worked with, or something was killed: snapshots whose numbers, or manifests, are in each
//! other's way.

use super::*;

/// Two snapshots with the same number, and on the second one, wednesday, builds another.
fn two_lives() -> (Bench, Vec<(&'static str, State)>) {
    let (bench, _) = three();
    let yesterday = fs::read(catalog(&bench)).unwrap();
    bench.grow(5, 100_000);
    bench.save("tuesday");
    let mut held = vec![("tuesday", elsewhere(&bench, "tuesday"))];
    bench.restore("c");
    fs::write(catalog(&bench), yesterday).unwrap();
    for (seed, id) in [(6, "wednesday"), (7, "thursday")] {
        bench.grow(seed, 100_000);
        bench.save(id);
        held.push((id, elsewhere(&bench, id)));
    }
    (bench, held)
}

fn is_settled(bench: &Bench, held: &[(&str, State)]) {
    let report = repaired(bench);
    assert!(report.is_whole(), "{report:?}");
    let mut all = ids(bench);
    assert!(all.iter().position(|id| id == "wednesday") < all.iter().position(|id| id == "thursday"), "{all:?}");
    all.sort();
    assert_eq!(all, ["a", "b", "c", "thursday", "tuesday", "wednesday"]);
    for _ in 0..2 {
        for (id, state) in held {
            assert!(elsewhere(bench, id) == *state, "P6: {id} came back wrong");
        }
        bench.gc(true);
    }
}

#[test]
fn p9_numbers_that_were_given_in_part_are_given_to_the_rest() {
    // Killed when only wednesday had its new number.
    let (bench, held) = two_lives();
    written_anew(&bench, "wednesday", |manifest| {
        manifest.sequence = 9;
        manifest.revision += 1;
    });
    fs::remove_file(catalog(&bench)).unwrap();
    is_settled(&bench, &held);
}

#[test]
fn p9_a_clock_that_was_set_back_parts_no_snapshot_from_what_it_builds_on() {
    let (bench, held) = two_lives();
    let before = written_anew(&bench, "thursday", |manifest| manifest.created -= 86_400_000_000);
    fs::remove_file(before).unwrap();
    fs::remove_file(catalog(&bench)).unwrap();
    is_settled(&bench, &held);
}

#[test]
fn p9_a_new_id_is_none_that_another_snapshot_has() {
    let (bench, held) = three();
    let before = written_anew(&bench, "a", |manifest| manifest.id = "c".into());
    fs::remove_file(before).unwrap();
    let before = written_anew(&bench, "b", |manifest| manifest.id = "c+1".into());
    fs::remove_file(before).unwrap();
    fs::remove_file(catalog(&bench)).unwrap();
    let report = repaired(&bench);
    assert_eq!(report.renamed, ["c+2"], "{report:?}");
    assert_eq!(ids(&bench), ["c+2", "c+1", "c"]);
    assert!(elsewhere(&bench, "c+2") == held[0] && elsewhere(&bench, "c") == held[2]);
}

#[test]
fn p9_a_deleted_snapshot_is_in_nobodys_way() {
    let (bench, held) = three();
    bench.delete("a");
    bench.save("d");
    bench.delete("d");
    // What is left of the deleted ones has the number, and the id, of others.
    for (id, number) in [("a", 2), ("d", 3)] {
        let sql = "SELECT lower(hex(o.name)) FROM snapshot s JOIN object_file o ON o.id = s.manifest WHERE s.name = ?1";
        let name: String = bench.sql().query_row(sql, [id], |row| row.get(0)).unwrap();
        let layout = Layout::open(&bench.place.root).unwrap();
        let mut manifest = Manifest::read(&layout, &Hash::from_hex(&name).unwrap()).unwrap();
        (manifest.sequence, manifest.id) = (number, "c".into());
        let counters = Counters::default();
        let file = manifest.write(&layout).unwrap().finish(&counters).unwrap();
        publish(&layout, vec![file], &counters).unwrap();
        fs::remove_file(layout.object(&Hash::from_hex(&name).unwrap())).unwrap();
    }
    fs::remove_file(catalog(&bench)).unwrap();
    let report = repaired(&bench);
    assert!(report.is_whole() && report.renamed.is_empty(), "{report:?}");
    assert_eq!(ids(&bench), ["b", "c"]);
    assert!(elsewhere(&bench, "b") == held[1] && elsewhere(&bench, "c") == held[2]);
    bench.gc(true);
    assert!(elsewhere(&bench, "b") == held[1] && elsewhere(&bench, "c") == held[2]);
}

#[test]
fn p5_a_snapshot_that_the_lock_still_announces_is_not_removed() {
    let (bench, held) = three();
    let manifest = manifest_of(&bench, "c");
    let data = own_data(&bench, "c");
    bench.restore("a");
    bench.grow(50, 100_000);
    let name = manifest.file_name().unwrap().to_str().unwrap();
    fs::write(bench.place.root.join("lock"), format!("znap (pid 1, user nobody)\nmanifest {name}\n")).unwrap();
    fs::remove_file(data).unwrap();
    fs::write(catalog(&bench), b"garbage").unwrap();
    let report = repair(&bench.place, &RepairOptions::default(), &Silent).unwrap();
    let aside: Vec<&str> = report.set_aside.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(aside, ["c"], "{report:?}");
    assert!(manifest.exists());
    assert!(elsewhere(&bench, "b") == held[1]);
}

#[test]
fn p6_the_revision_counts_that_has_what_it_builds_on() {
    let (bench, held) = three();
    let (of_b, of_c) = (manifest_of(&bench, "b"), manifest_of(&bench, "c"));
    let first = fs::read(&of_c).unwrap();
    bench.delete("b");
    bench.gc(false);
    assert!(!of_b.exists() && !of_c.exists());
    for lose_catalog in [false, true] {
        // The gc was killed before it had removed c's first manifest.
        fs::write(&of_c, &first).unwrap();
        for path in objects(&bench, 1) {
            fs::remove_file(path).unwrap();
        }
        if lose_catalog {
            fs::remove_file(catalog(&bench)).unwrap();
        }
        let report = repaired(&bench);
        assert!(report.set_aside.is_empty(), "{report:?}");
        assert!(elsewhere(&bench, "a") == held[0] && elsewhere(&bench, "c") == held[2]);
    }
}
