//! gzip as repozo's own Python reads it: zeros may follow, with which tapes and some copies are filled up.

use std::fs::File;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result};

use flate2::bufread::GzDecoder;

/// Reads the streams of a file, one behind the other, to its end, before which there may be zeros.
pub(super) struct Gunzip {
    /// `None` behind the last one.
    stream: Option<GzDecoder<BufReader<File>>>,
}

impl Gunzip {
    pub(super) fn new(file: File) -> Self {
        Gunzip { stream: Some(GzDecoder::new(BufReader::new(file))) }
    }
}

impl Read for Gunzip {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        while let Some(mut stream) = self.stream.take() {
            let read = stream.read(buffer)?;
            if read > 0 {
                self.stream = Some(stream);
                return Ok(read);
            }
            // It is at its end, and its sum was right.
            let mut rest = stream.into_inner();
            self.stream = match rest.fill_buf()?.first() {
                None => None,
                Some(0) => skip_zeros(&mut rest).map(|()| None)?,
                Some(_) => Some(GzDecoder::new(rest)),
            };
        }
        Ok(0)
    }
}

/// Reads zeros to the end; anything else is an error.
fn skip_zeros(rest: &mut impl BufRead) -> Result<()> {
    loop {
        let bytes = rest.fill_buf()?;
        match bytes.len() {
            0 => return Ok(()),
            _ if bytes.iter().any(|byte| *byte != 0) => {
                return Err(Error::new(ErrorKind::InvalidData, "something follows the zeros behind its end"));
            }
            length => rest.consume(length),
        }
    }
}
