//! Work done on several threads, its results used in order; and two things done at once.

use std::sync::mpsc::sync_channel;

use crate::error::{Error, Result};

/// Does `work` with each item, on as many threads as there are cores, but at most so many, and gives each result to
/// `use_result`, in the order of the items. At any time each thread has at most one result, being made or waiting.
/// Ends at the first error, of either. `new_state` makes what each thread has for itself.
pub(crate) fn in_order<T: Sync, S, R: Send>(
    items: &[T],
    threads: usize,
    new_state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &T) -> Result<R> + Sync,
    mut use_result: impl FnMut(&T, R) -> Result<()>,
) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(threads).min(items.len());
    if threads < 2 {
        let mut state = new_state();
        return items.iter().try_for_each(|item| use_result(item, work(&mut state, item)?));
    }
    std::thread::scope(|scope| {
        // Each thread has every so many'th item; it waits until its last result was taken. Whichever side ends early, the
        // other notices by its end of the channel.
        let mut results = Vec::new();
        let mut starts = Vec::new();
        let mut handles = Vec::new();
        for first in 0..threads {
            let (sender, receiver) = sync_channel(0);
            let (start, step) = sync_channel(1);
            let (new_state, work) = (&new_state, &work);
            let thread = std::thread::Builder::new().spawn_scoped(scope, move || {
                let Ok(step) = step.recv() else { return };
                let mut state = new_state();
                for item in items.iter().skip(first).step_by(step) {
                    if sender.send(work(&mut state, item)).is_err() {
                        return;
                    }
                }
            });
            // Where no more threads can be had, fewer will do.
            let Ok(handle) = thread else { break };
            handles.push(handle);
            results.push(receiver);
            starts.push(start);
        }
        if handles.is_empty() {
            let mut state = new_state();
            return items.iter().try_for_each(|item| use_result(item, work(&mut state, item)?));
        }
        for start in &starts {
            // It can't have gone away: it waits for just this.
            let _ = start.send(handles.len());
        }
        let mut turn = results.iter().cycle();
        let used = items.iter().try_for_each(|item| {
            let next = turn.next().and_then(|receiver| receiver.recv().ok());
            use_result(item, next.unwrap_or_else(|| Err(stopped()))?)
        });
        drop(results);
        // A thread that panicked is an error, not a panic here.
        let panicked = handles.into_iter().map(|handle| handle.join()).filter(|joined| joined.is_err()).count();
        if panicked > 0 { Err(stopped()) } else { used }
    })
}

/// Does two things at once, `other` on a thread of its own that `purpose` describes in an error.
pub(crate) fn beside<A: Send, B>(
    purpose: &str,
    other: impl FnOnce() -> A + Send,
    here: impl FnOnce() -> B,
) -> Result<(A, B)> {
    std::thread::scope(|scope| {
        let other = std::thread::Builder::new()
            .spawn_scoped(scope, other)
            .map_err(|error| Error::failed(format!("cannot start a thread that {purpose}: {error}")))?;
        let here = here();
        match other.join() {
            Ok(other) => Ok((other, here)),
            Err(_) => Err(Error::failed(format!("the thread that {purpose} stopped unexpectedly"))),
        }
    })
}

fn stopped() -> Error {
    Error::failed("a thread stopped unexpectedly")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_errors_end_it() {
        let items: Vec<u64> = (0..100).collect();
        for threads in [1, 2, 3] {
            let mut seen = Vec::new();
            let square = |_: &mut (), item: &u64| {
                std::thread::sleep(std::time::Duration::from_micros(item * 37 % 100));
                if *item == 77 { Err(Error::failed("no more")) } else { Ok(item * item) }
            };
            let result = in_order(
                &items,
                threads,
                || (),
                square,
                |item, square| {
                    seen.push((*item, square));
                    Ok(())
                },
            );
            assert_eq!(result.unwrap_err().to_string(), "no more");
            assert_eq!(seen, (0..77).map(|item| (item, item * item)).collect::<Vec<_>>());
            let mut count = 0;
            let stop = |item: &u64, ()| {
                count += 1;
                if *item == 10 { Err(Error::failed("enough")) } else { Ok(()) }
            };
            let result = in_order(&items, threads, || (), |(), _| Ok(()), stop);
            assert_eq!((result.unwrap_err().to_string(), count), ("enough".into(), 11));
        }
        let result = in_order(
            &items,
            2,
            || (),
            |(), item| if *item == 5 { panic!("on purpose") } else { Ok(()) },
            |_, ()| Ok(()),
        );
        assert!(result.unwrap_err().to_string().contains("stopped unexpectedly"));
        in_order(&[], 2, || (), |(), _: &u64| Ok(()), |_, ()| Err(Error::failed("there is nothing"))).unwrap();
    }
}
