//! How calls are written on a connection that two nodes keep for them: `GET /peer`, upgraded to [`PROTOCOL`].
//!
//! Whoever opened the connection asks, the other side answers, in any order. All numbers are big-endian.
//!
//! ```text
//! call    length u32 | number u64 | length u16, authorization | message
//! answer  length u32 | number u64 | 0 | message
//!                                 | 1 | MAC, 32 bytes | message
//!                                 | 2 | status u16 | why, in words
//!                                 | 3
//! ```
//!
//! `length` counts what follows it. A message is what `POST /peer` has as its body, an answer's what it answers with. The
//! authorization is the text of that header as if the message were the body of a request with the method [`METHOD`], the MAC
//! that of such a request's answer with status 200; both are there where the ring has a secret. 2 is what `POST /peer` answers
//! with an error, 3 says that the answer is too long for here and to be had by `POST /peer`.

/// What the connection is upgraded to.
pub(crate) const PROTOCOL: &str = "chordal-peer";

/// The method for which a call is signed: one of its own, so that it can be sent as nothing else.
pub(crate) const METHOD: &str = "CALL";

/// The longest message that travels so, in bytes. A longer one would stand in the way of those that come after it.
pub(crate) const LONGEST: usize = 64 << 10;

/// How many calls may be under way on a connection. Who asks sends no more, who answers reads no more.
pub(crate) const UNDER_WAY: usize = 256;

/// The longest authorization; a key's id has 64 bytes at most.
const AUTHORIZATION: usize = 512;

/// What stands in a frame besides its message, at most.
const AROUND: usize = 8 + 2 + AUTHORIZATION;

/// A frame that cannot be one: what follows cannot be read either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what came is no frame")]
pub(crate) struct NoFrame;

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call<'a> {
    pub(crate) number: u64,
    /// Empty where the ring has no secret.
    pub(crate) authorization: &'a [u8],
    pub(crate) message: &'a [u8],
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer<'a> {
    Plain(&'a [u8]),
    Signed(&'a [u8; 32], &'a [u8]),
    Refused(u16, &'a str),
    TooLong,
}

/// A frame without its length, and what comes after it.
type Split<'a> = (&'a [u8], &'a [u8]);

/// The first frame of what was read. `None` if it is not there in full yet.
pub(crate) fn first(read: &[u8]) -> Result<Option<Split<'_>>, NoFrame> {
    let Some((length, rest)) = read.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > LONGEST + AROUND {
        return Err(NoFrame);
    }
    Ok(rest.split_at_checked(length))
}

/// Adds a call to what is to be sent.
pub(crate) fn write_call(out: &mut Vec<u8>, call: &Call<'_>) {
    let Call { number, authorization, message } = *call;
    out.extend_from_slice(&length(8 + 2 + authorization.len() + message.len()));
    out.extend_from_slice(&number.to_be_bytes());
    // Ours have some 250 bytes.
    out.extend_from_slice(&(authorization.len() as u16).to_be_bytes());
    out.extend_from_slice(authorization);
    out.extend_from_slice(message);
}

/// Reads a frame as a call.
pub(crate) fn read_call(frame: &[u8]) -> Result<Call<'_>, NoFrame> {
    let (number, rest) = frame.split_first_chunk().ok_or(NoFrame)?;
    let (length, rest) = rest.split_first_chunk().ok_or(NoFrame)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (authorization, message) = rest.split_at_checked(length).ok_or(NoFrame)?;
    if length > AUTHORIZATION || message.len() > LONGEST {
        return Err(NoFrame);
    }
    Ok(Call { number: u64::from_be_bytes(*number), authorization, message })
}

/// Adds an answer to what is to be sent.
pub(crate) fn write_answer(out: &mut Vec<u8>, number: u64, answer: &Answer<'_>) {
    let status;
    let (kind, before, rest): (u8, &[u8], &[u8]) = match answer {
        Answer::Plain(message) => (0, &[], message),
        Answer::Signed(mac, message) => (1, *mac, message),
        Answer::Refused(code, why) => {
            status = code.to_be_bytes();
            (2, &status, why.as_bytes())
        }
        Answer::TooLong => (3, &[], &[]),
    };
    out.extend_from_slice(&length(8 + 1 + before.len() + rest.len()));
    out.extend_from_slice(&number.to_be_bytes());
    out.push(kind);
    out.extend_from_slice(before);
    out.extend_from_slice(rest);
}

/// Reads a frame as an answer, with the number of its call.
pub(crate) fn read_answer(frame: &[u8]) -> Result<(u64, Answer<'_>), NoFrame> {
    let (number, rest) = frame.split_first_chunk().ok_or(NoFrame)?;
    let (kind, rest) = rest.split_first().ok_or(NoFrame)?;
    let answer = match kind {
        0 => Answer::Plain(rest),
        1 => rest.split_first_chunk().map(|(mac, message)| Answer::Signed(mac, message)).ok_or(NoFrame)?,
        2 => {
            let (status, why) = rest.split_first_chunk().ok_or(NoFrame)?;
            Answer::Refused(u16::from_be_bytes(*status), std::str::from_utf8(why).map_err(|_| NoFrame)?)
        }
        3 => Answer::TooLong,
        _ => return Err(NoFrame),
    };
    Ok((u64::from_be_bytes(*number), answer))
}

fn length(bytes: usize) -> [u8; 4] {
    // Messages are bounded far below.
    (bytes as u32).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_read_back_one_after_the_other_and_not_before_they_are_there() {
        let calls = [
            Call { number: 1, authorization: b"", message: b"abc" },
            Call { number: u64::MAX, authorization: b"Chordal-1 key=k", message: b"" },
            Call { number: 0, authorization: &[7; AUTHORIZATION], message: &[9; LONGEST] },
        ];
        let mut out = Vec::new();
        calls.iter().for_each(|call| write_call(&mut out, call));
        let mut rest = &out[..];
        for call in calls {
            let (frame, after) = first(rest).unwrap().unwrap();
            assert_eq!(read_call(frame), Ok(call));
            for part in [0, 3, 4, 11, frame.len() + 3] {
                assert_eq!(first(&rest[..part]), Ok(None));
            }
            rest = after;
        }
        assert_eq!(first(rest), Ok(None));
    }

    #[test]
    fn answers_read_back() {
        for answer in [Answer::Plain(b"x"), Answer::Signed(&[3; 32], b""), Answer::Refused(401, "why"), Answer::TooLong]
        {
            let mut out = Vec::new();
            write_answer(&mut out, 5, &answer);
            let (frame, rest) = first(&out).unwrap().unwrap();
            assert_eq!((read_answer(frame), rest), (Ok((5, answer)), &b""[..]));
        }
    }

    #[test]
    fn what_is_no_frame_is_not_read() {
        assert_eq!(first(b"GET / HTTP/1.1"), Err(NoFrame), "that is a length of a gigabyte");
        assert_eq!(first(&((LONGEST + AROUND + 1) as u32).to_be_bytes()), Err(NoFrame));
        for short in [&[0; 7][..], &[0; 9], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 1]] {
            assert_eq!(read_call(short), Err(NoFrame));
        }
        let mut long = Vec::new();
        write_call(&mut long, &Call { number: 1, authorization: b"", message: &[0; LONGEST + 1] });
        assert_eq!(read_call(&long[4..]), Err(NoFrame));
        for kind in [1, 2, 4] {
            assert_eq!(read_answer(&[0, 0, 0, 0, 0, 0, 0, 1, kind]), Err(NoFrame));
        }
        assert_eq!(read_answer(&[0, 0, 0, 0, 0, 0, 0, 1, 2, 1, 2, 0xff]), Err(NoFrame), "no words");
    }
}
