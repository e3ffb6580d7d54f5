//! What is in the way: files that can't be copied, and things that are no files.

use super::*;

use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;

const OTHER: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

fn run(bench: &Bench, from: &[PathBuf]) -> RepairReport {
    repair(&bench.place, &RepairOptions { dry_run: false, from: from.to_vec() }, &Silent).unwrap()
}

/// Makes something that is no file: a pipe, an endless one, a directory.
fn make_strange(path: &Path, kind: usize) {
    match kind {
        0 => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        1 => symlink("/dev/zero", path).unwrap(),
        _ => fs::create_dir(path).unwrap(),
    }
}

fn is_strange(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|there| !there.is_file())
}

#[test]
fn p6_what_is_no_file_is_left_alone_or_moved_away() {
    for kind in 0..3 {
        let (bench, held) = three();
        let root = &bench.place.root;
        make_strange(&root.join("objects").join(OTHER), kind);
        let report = run(&bench, &[]);
        assert_eq!(report.unknown_files, [OTHER], "{report:?}");
        assert!(report.is_whole() && !report.is_change(), "{report:?}");
        assert!(is_strange(&root.join("objects").join(OTHER)));

        // In the place of a file that can be made again, and of one that can't.
        let (manifest, data) = (manifest_of(&bench, "b"), own_data(&bench, "b"));
        for path in [&manifest, &data] {
            fs::remove_file(path).unwrap();
            make_strange(path, kind);
        }
        // Among the damaged files, and in a copy.
        fs::create_dir(root.join("damaged")).unwrap();
        let copy = bench.folder.path().join("copy");
        fs::create_dir(&copy).unwrap();
        make_strange(&root.join("damaged").join(OTHER), kind);
        make_strange(&copy.join(OTHER), kind);
        make_strange(&copy.join(data.file_name().unwrap()), kind);
        let report = run(&bench, &[copy]);
        assert!(report.is_whole() && report.is_change(), "{report:?}");
        assert!(manifest.is_file() && is_strange(&root.join("damaged").join(manifest.file_name().unwrap())));
        keeps_all(&bench, &held);
        bench.gc(false);
        assert!(!run(&bench, &[]).is_change());
    }
}

#[test]
fn p6_damaged_files_are_kept_in_the_repository_and_nowhere_else() {
    let (bench, held) = three();
    let outside = bench.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, bench.place.root.join("damaged")).unwrap();
    flip(&own_data(&bench, "b"), 100);
    let error = repair(&bench.place, &RepairOptions::default(), &Silent).unwrap_err();
    assert!(error.to_string().contains("not a directory") && error.hint_text().unwrap().contains("move it"), "{error}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    fs::remove_file(bench.place.root.join("damaged")).unwrap();
    assert!(repaired(&bench).is_whole());
    keeps_all(&bench, &held);
}

#[test]
fn p5_what_is_replaced_is_kept_without_being_read() {
    let (bench, held) = three();
    let copy = copied(&bench);
    let data = own_data(&bench, "b");
    let damaged = bench.place.root.join("damaged");
    for folder in [damaged.clone(), damaged.join("2")] {
        flip(&data, 100);
        let before = fs::metadata(&data).unwrap().ino();
        assert!(repaired_from(&bench, std::slice::from_ref(&copy)).is_whole());
        assert_eq!(fs::metadata(folder.join(data.file_name().unwrap())).unwrap().ino(), before);
        keeps_all(&bench, &held);
    }
    fs::write(catalog(&bench), b"garbage").unwrap();
    let before = fs::metadata(catalog(&bench)).unwrap().ino();
    let report = repaired(&bench);
    assert_eq!(fs::metadata(bench.place.root.join(report.catalog_kept.unwrap())).unwrap().ino(), before);
}

#[test]
fn p9_a_directory_in_the_place_of_the_catalog() {
    let (bench, held) = three();
    fs::remove_file(catalog(&bench)).unwrap();
    fs::create_dir(catalog(&bench)).unwrap();
    fs::write(catalog(&bench).join("x"), b"x").unwrap();
    let report = repaired(&bench);
    assert!(report.is_whole(), "{report:?}");
    assert!(bench.place.root.join(report.catalog_kept.unwrap()).join("x").exists());
    keeps_all(&bench, &held);
}

#[test]
fn p6_what_is_in_a_second_damaged_file_of_a_name_is_found() {
    let (bench, held) = three();
    let data = own_data(&bench, "b");
    let good = fs::read(&data).unwrap();
    let folder = bench.place.root.join("damaged/2");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(data.file_name().unwrap()), good).unwrap();
    bench.restore("a");
    bench.grow(50, 100_000);
    fs::remove_file(&data).unwrap();
    let report = repaired(&bench);
    assert!(report.is_whole() && report.found.damaged_files > 0, "{report:?}");
    keeps_all(&bench, &held);
}

#[test]
fn p6_a_block_that_cannot_be_read_is_tried_once() {
    let (bench, held) = three();
    let data = own_data(&bench, "b");
    let sql = bench.sql();
    let name = data.file_name().unwrap().to_str().unwrap();
    let mut select = sql
        .prepare(
            "SELECT f.offset FROM frame f JOIN object_file o ON o.id = f.object_file
             WHERE lower(hex(o.name)) = ?1 AND f.codec = 1",
        )
        .unwrap();
    let frames: Vec<i64> = select.query_map([name], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(!frames.is_empty());
    // The first byte of what zstd takes for its own.
    for offset in &frames {
        flip(&data, *offset as usize);
    }
    drop(select);
    drop(sql);
    let length = fs::metadata(&data).unwrap().len();
    let report = run(&bench, &[]);
    assert!(report.is_whole() && report.found.databases > 2, "{report:?}");
    assert!(report.counts.object_bytes_read <= length, "{} of {length}", report.counts.object_bytes_read);
    keeps_all(&bench, &held);
}
