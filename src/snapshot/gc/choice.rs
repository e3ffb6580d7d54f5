//! Which data files gc writes anew.
//!
//! One that is more than a fifth unused, by itself. Small ones to join them, because small frames compress badly; but
//! not all of them each time: one is joined only with others that together are at least as large. So each time that
//! bytes are written anew the file that they are in doubles, and a save of `s` bytes is written anew at most
//! log2([`SMALL`] / `s`) + 1 times, however often gc runs, but for those at the edge of a step
//! ([`super::rewrite::steps`]). What is left are few files, each larger than all smaller ones together. With `--all`
//! every small file is joined.

use std::collections::HashSet;

use crate::repository::catalog::ObjectUse;
use crate::repository::data::FRAME_LIMIT;
use crate::snapshot::gc::GcOptions;

/// A data file with fewer raw bytes than this is small: it doesn't fill a frame.
const SMALL: u64 = FRAME_LIMIT as u64;

/// Whether a data file is worth writing anew by itself.
pub(super) fn is_wasteful(file: &ObjectUse, options: GcOptions) -> bool {
    let unused = file.raw.saturating_sub(file.live_raw);
    unused * 5 > file.raw || (options.all && unused > 0)
}

/// The data files to write anew, in their order. Those that nothing needs aren't among them: they just go.
pub(super) fn to_rewrite(files: &[ObjectUse], options: GcOptions) -> Vec<&ObjectUse> {
    let live = || files.iter().filter(|file| file.live_raw > 0);
    let wasteful: u64 = live().filter(|file| is_wasteful(file, options)).map(|file| file.live_raw).sum();
    let mut small: Vec<&ObjectUse> =
        live().filter(|file| !is_wasteful(file, options) && file.live_raw < SMALL).collect();
    small.sort_by_key(|file| (file.live_raw, file.file.row));
    let mut smaller = wasteful;
    let mut joined = 0;
    for (place, file) in small.iter().enumerate() {
        if file.live_raw <= smaller || (options.all && smaller > 0) {
            joined = place + 1;
        }
        smaller += file.live_raw;
    }
    let joined: HashSet<i64> = small.iter().take(joined).map(|file| file.file.row).collect();
    live().filter(|file| is_wasteful(file, options) || joined.contains(&file.file.row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::catalog::ObjectFile;
    use crate::repository::hash::Hash;
    use crate::repository::object::ObjectKind;

    fn file(row: i64, raw: u64, live_raw: u64) -> ObjectUse {
        let file = ObjectFile { row, name: Hash::of(&row.to_le_bytes()), kind: ObjectKind::Data, bytes: raw / 5 };
        ObjectUse { file, raw, live_raw }
    }

    fn chosen(files: &[(u64, u64)], options: GcOptions) -> Vec<usize> {
        let files: Vec<ObjectUse> =
            files.iter().enumerate().map(|(row, (raw, live))| file(row as i64, *raw, *live)).collect();
        to_rewrite(&files, options).iter().map(|file| file.file.row as usize).collect()
    }

    const MB: u64 = 1_000_000;

    #[test]
    fn small_files_are_joined_when_together_they_are_worth_it() {
        let full = |sizes: &[u64]| sizes.iter().map(|size| (*size, *size)).collect::<Vec<_>>();
        let usual = GcOptions::default();
        assert_eq!(chosen(&full(&[]), usual), [] as [usize; 0]);
        assert_eq!(chosen(&full(&[5 * MB]), usual), [] as [usize; 0]);
        assert_eq!(chosen(&full(&[5 * MB, 5 * MB]), usual), [0, 1]);
        assert_eq!(chosen(&full(&[40 * MB, MB, 2 * MB, 3 * MB]), usual), [1, 2, 3]);
        assert_eq!(chosen(&full(&[6 * MB, 100 * MB, MB, 2 * MB, 3 * MB]), usual), [0, 2, 3, 4]);
        // One that is mostly unused goes, and takes with it what is no larger than what is left of it.
        assert_eq!(chosen(&[(100 * MB, 30 * MB), (20 * MB, 20 * MB), (60 * MB, 60 * MB)], usual), [0, 1]);
        assert_eq!(chosen(&[(100 * MB, 81 * MB), (50 * MB, 0)], usual), [] as [usize; 0]);
        assert_eq!(chosen(&[(100 * MB, 81 * MB), (50 * MB, 0)], GcOptions { all: true }), [0]);
        assert_eq!(chosen(&full(&[30 * MB, MB, 100 * MB]), GcOptions { all: true }), [0, 1]);
    }

    /// Bytes written anew by gc for each that a save wrote, if gc runs after every `every` saves.
    fn amplification(saves: u64, every: u64, size: impl Fn(u64) -> u64) -> f64 {
        let mut files: Vec<ObjectUse> = Vec::new();
        let (mut saved, mut again) = (0, 0);
        for save in 1..=saves {
            files.push(file(save as i64, size(save), size(save)));
            saved += size(save);
            if save % every == 0 {
                let rows: Vec<i64> =
                    to_rewrite(&files, GcOptions::default()).iter().map(|file| file.file.row).collect();
                let joined: u64 = files.iter().filter(|file| rows.contains(&file.file.row)).map(|file| file.raw).sum();
                if joined > 0 {
                    files.retain(|file| !rows.contains(&file.file.row));
                    files.push(file((saves + save) as i64, joined, joined));
                    again += joined;
                }
                let small = files.iter().filter(|file| file.raw < SMALL).count();
                assert!(small <= 12, "{small} small files are left");
            }
        }
        again as f64 / saved as f64
    }

    #[test]
    fn however_often_gc_runs_bytes_are_written_anew_a_bounded_number_of_times() {
        let equal = |_| 100_000;
        let uneven = |save: u64| 20_000 + (save * 7919 % 97) * 5_000;
        let bound = (SMALL as f64 / 20_000.0).log2() + 1.0;
        for every in [1, 2, 3, 7, 50, 200] {
            for result in [amplification(1000, every, equal), amplification(1000, every, uneven)] {
                assert!(result <= bound, "every {every}: {result}");
            }
        }
        assert!(amplification(1000, 50, equal) <= 4.0);
    }
}
