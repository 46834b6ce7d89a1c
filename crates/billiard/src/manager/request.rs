//! What a request asks of whom, read from its bytes. Nothing is built from them, so nothing of the peer's is executed.
//!
//! A request is the pickle of a tuple: whom it is for, the method's name, and the arguments.

/// Why bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// They end too early.
    #[error("the request ends inside an instruction; the peer sent something cut off")]
    Cut,
    /// Something follows the end.
    #[error("{0} bytes follow the end of the request; the peer speaks another protocol")]
    Trailing(usize),
}

/// A request, as far as its bytes tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// For which object it is. None: for the server, or it is written in a way that only the unpickler understands.
    pub ident: Option<&'a str>,
    /// What is to be called, where the name stands where it usually does.
    pub method: Option<&'a str>,
    /// Whether its arguments are made of numbers, strings, bytes and containers of them: then no class of anybody's has a say
    /// when they are unpickled. What is not known to be plain is not plain.
    pub is_plain: bool,
}

impl<'a> Request<'a> {
    /// Reads a request.
    ///
    /// ```
    /// use billiard::manager::Request;
    ///
    /// // What Python makes of ("7f", "get", (), {}).
    /// let request = Request::read(b"\x80\x04(\x8c\x027f\x94\x8c\x03get\x94)}\x94t\x94.")?;
    /// assert_eq!((request.ident, request.method, request.is_plain), (Some("7f"), Some("get"), true));
    /// # Ok::<(), billiard::manager::RequestError>(())
    /// ```
    ///
    /// # Errors
    /// It is cut off, or goes on behind its end.
    pub fn read(bytes: &'a [u8]) -> Result<Self, RequestError> {
        let mut reader = Reader { rest: bytes };
        let mut request = Self { is_plain: true, ..Self::default() };
        let mut stack = Stack::default();
        loop {
            let step = reader.next()?;
            if let Step::Text(text) = step {
                match stack.depth {
                    _ if !stack.begins_with_mark() => {}
                    IDENT => request.ident = Some(text),
                    METHOD => request.method = Some(text),
                    _ => {}
                }
            }
            let lowest = match step {
                Step::End if reader.rest.is_empty() => return Ok(request),
                Step::End => return Err(RequestError::Trailing(reader.rest.len())),
                Step::Frame => continue,
                Step::Text(_) | Step::Push => stack.change(0, 1),
                Step::Mark => stack.mark(),
                Step::Change { pops, pushes } => stack.change(pops, pushes),
                Step::Collect { pushes } => stack.collect(pushes),
                Step::Foreign => None,
            };
            // Where this leads cannot be told without the unpickler.
            let Some(lowest) = lowest else { return Ok(Self { is_plain: false, ..request }) };
            // What has gone into something else is nobody's name. The whole tuple takes everything, its mark included.
            if (1..=IDENT).contains(&lowest) {
                request.ident = None;
            }
            if (1..=METHOD).contains(&lowest) {
                request.method = None;
            }
        }
    }
}

/// Where the names are on the unpickler's stack, above the mark with which the tuple begins.
const IDENT: usize = 1;
const METHOD: usize = 2;
/// What is nested deeper is not plain: it takes its time.
const DEEPEST: usize = 64;

/// How much the unpickler has in its hands.
#[derive(Default)]
struct Stack {
    depth: usize,
    marks: Vec<usize>,
}

impl Stack {
    fn begins_with_mark(&self) -> bool {
        self.marks.first() == Some(&0)
    }

    fn mark(&mut self) -> Option<usize> {
        if self.marks.len() == DEEPEST {
            return None;
        }
        self.marks.push(self.depth);
        self.depth += 1;
        Some(self.depth)
    }

    /// How little there was in between. None: there was not enough.
    fn change(&mut self, pops: usize, pushes: usize) -> Option<usize> {
        let floor = self.marks.last().map_or(0, |mark| mark + 1);
        let lowest = self.depth.checked_sub(pops).filter(|lowest| *lowest >= floor)?;
        self.depth = lowest + pushes;
        Some(if pops == 0 { self.depth } else { lowest })
    }

    fn collect(&mut self, pushes: usize) -> Option<usize> {
        let lowest = self.marks.pop()?;
        self.depth = lowest + pushes;
        Some(lowest)
    }
}

enum Step<'a> {
    Text(&'a str),
    /// Leaves the stack as it is.
    Frame,
    Push,
    Mark,
    /// Takes so many, and puts so many in their place.
    Change {
        pops: usize,
        pushes: usize,
    },
    /// Takes all down to the last mark.
    Collect {
        pushes: usize,
    },
    Foreign,
    End,
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: u64) -> Result<&'a [u8], RequestError> {
        let len = usize::try_from(len).map_err(|_| RequestError::Cut)?;
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(RequestError::Cut)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Skips a length of so many bytes, the low one first, and what it announces.
    fn counted(&mut self, len: u64) -> Result<&'a [u8], RequestError> {
        let length = self.take(len)?.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        self.take(length)
    }

    fn next(&mut self) -> Result<Step<'a>, RequestError> {
        let text = |bytes| std::str::from_utf8(bytes).map_or(Step::Push, Step::Text);
        let opcode = self.take(1)?[0];
        Ok(match opcode {
            b'.' => Step::End,
            // PROTO, FRAME; MEMOIZE, BINPUT, LONG_BINPUT.
            0x80 | b'q' => self.take(1).map(|_| Step::Frame)?,
            0x95 => self.take(8).map(|_| Step::Frame)?,
            b'r' => self.take(4).map(|_| Step::Frame)?,
            0x94 => Step::Frame,
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8.
            0x8c => text(self.counted(1)?),
            b'X' => text(self.counted(4)?),
            0x8d => text(self.counted(8)?),
            // LONG1, SHORT_BINBYTES; LONG4, BINBYTES; BINBYTES8, BYTEARRAY8.
            0x8a | b'C' => self.counted(1).map(|_| Step::Push)?,
            0x8b | b'B' => self.counted(4).map(|_| Step::Push)?,
            0x8e | 0x96 => self.counted(8).map(|_| Step::Push)?,
            // BININT1, BINGET; BININT2; BININT, LONG_BINGET; BINFLOAT.
            b'K' | b'h' => self.take(1).map(|_| Step::Push)?,
            b'M' => self.take(2).map(|_| Step::Push)?,
            b'J' | b'j' => self.take(4).map(|_| Step::Push)?,
            b'G' => self.take(8).map(|_| Step::Push)?,
            b'(' => Step::Mark,
            // NONE, NEWTRUE, NEWFALSE, and the empty tuple, list, dictionary and set.
            b'N' | 0x88 | 0x89 | b')' | b']' | b'}' | 0x8f => Step::Push,
            // TUPLE1 to TUPLE3.
            0x85..=0x87 => Step::Change { pops: usize::from(opcode - 0x84), pushes: 1 },
            // APPEND, SETITEM.
            b'a' => Step::Change { pops: 1, pushes: 0 },
            b's' => Step::Change { pops: 2, pushes: 0 },
            // TUPLE, FROZENSET; APPENDS, SETITEMS, ADDITEMS.
            b't' | 0x91 => Step::Collect { pushes: 1 },
            b'e' | b'u' | 0x90 => Step::Collect { pushes: 0 },
            _ => Step::Foreign,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_python_writes_is_understood() {
        // ('7f', '__setitem__', ('k', 1), {}) by protocols 2, 4 and 5.
        for bytes in [
            b"\x80\x02(X\x02\x00\x00\x007fq\x00X\x0b\x00\x00\x00__setitem__q\x01X\x01\x00\x00\x00kq\x02K\x01\x86q\x03}q\x04tq\x05."
                .as_slice(),
            b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00(\x8c\x027f\x94\x8c\x0b__setitem__\x94\x8c\x01k\x94K\x01\x86\x94}\x94t\x94.",
            b"\x80\x05\x95\x1f\x00\x00\x00\x00\x00\x00\x00(\x8c\x027f\x94\x8c\x0b__setitem__\x94\x8c\x01k\x94K\x01\x86\x94}\x94t\x94.",
        ] {
            let expected = Request { ident: Some("7f"), method: Some("__setitem__"), is_plain: true };
            assert_eq!(Request::read(bytes), Ok(expected));
        }
    }

    #[test]
    fn what_is_for_the_server_has_no_ident() {
        // (None, 'dummy', (), {})
        let request = Request::read(b"\x80\x04(N\x8c\x05dummy\x94)}\x94t\x94.").unwrap();
        assert_eq!(request, Request { ident: None, method: Some("dummy"), is_plain: true });
    }

    #[test]
    fn what_is_inside_of_the_first_item_is_no_ident() {
        // (('billiard 1', 'me', False), 'accept_connection', ('MainProcess',), {})
        let greeting = b"\x80\x04(\x8c\x0abilliard 1\x94\x8c\x02me\x94\x89\x87\x94\x8c\x11accept_connection\x94\x8c\x0bMainProcess\x94\x85\x94}\x94t\x94.";
        let expected = Request { ident: None, method: Some("accept_connection"), is_plain: true };
        assert_eq!(Request::read(greeting), Ok(expected));
        // ({'7f': 'x'}, 'get', (), {})
        let request = Request::read(b"\x80\x04(}\x8c\x027f\x8c\x01xs\x8c\x03get)}t.").unwrap();
        assert_eq!(request, Request { ident: None, method: Some("get"), is_plain: true });
    }

    #[test]
    fn what_takes_more_than_there_is_and_what_is_nested_too_deep_is_not_plain() {
        for bytes in [b"(\x85t.".as_slice(), b"a.", b"t.", b"N(Ns.", &[b'('; DEEPEST + 1]] {
            let request = Request::read(bytes).unwrap();
            assert!(!request.is_plain, "{bytes:?}");
        }
    }

    #[test]
    fn whatever_could_execute_something_is_not_plain() {
        // A name is looked up, something is called, an object's state is set, an extension, a persistent object is asked for.
        for opcode in b"cR\x93b\x81\x92oi\x82\x83\x84PQ02\x97\x98\x99".iter() {
            let bytes = [b"\x80\x04(\x8c\x027f\x94\x8c\x03get\x94".as_slice(), &[*opcode], b")."].concat();
            let request = Request::read(&bytes).unwrap();
            assert!(!request.is_plain, "{opcode:#x}");
            assert_eq!(request.ident, Some("7f"));
        }
    }

    #[test]
    fn a_length_that_is_a_lie_ends_the_request() {
        for bytes in [
            b"\x80\x04(\x8c\xff7f".as_slice(),
            b"\x80\x04(\x8d\xff\xff\xff\xff\xff\xff\xff\xff7f",
            b"\x80\x04(\x8e\0\0\0\0\0\0\0\x80x",
            b"",
            b"\x80",
        ] {
            assert_eq!(Request::read(bytes), Err(RequestError::Cut));
        }
        assert_eq!(Request::read(b"N.N."), Err(RequestError::Trailing(2)));
    }

    /// The opcodes that Python's unpickler resolves without looking at a module.
    const INNOCENT: &[u8] =
        b".(N\x88\x89KMJGh j qr\x8a\x8b\x8cX\x8dCB\x8e\x96)\x85\x86\x87t]ae}su\x8f\x90\x91\x94\x80\x95";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn it_takes_whatever_comes(bytes: Vec<u8>) {
            if let Ok(request) = Request::read(&bytes)
                && request.is_plain
            {
                // It was read to its end, which is the only one.
                prop_assert_eq!(bytes.last(), Some(&b'.'));
            }
        }

        #[test]
        fn a_stranger_among_the_opcodes_is_never_plain(
            before in proptest::collection::vec(
                proptest::sample::select(b"N()]}a\x85\x88\x94".to_vec()), 0..20),
            opcode: u8,
        ) {
            let bytes = [&before[..], &[opcode], &[0; 16], b"."].concat();
            let plain = Request::read(&bytes).is_ok_and(|request| request.is_plain);
            prop_assert!(!plain || INNOCENT.contains(&opcode));
        }

        #[test]
        fn names_are_where_they_were_put(ident in "[0-9a-f]{1,16}", method in "[a-z_]{1,250}") {
            let mut bytes = vec![0x80, 4, b'('];
            for name in [&ident, &method] {
                bytes.push(0x8c);
                bytes.push(u8::try_from(name.len()).unwrap());
                bytes.extend_from_slice(name.as_bytes());
                bytes.push(0x94);
            }
            bytes.extend_from_slice(b")}t.");
            let expected = Request { ident: Some(&ident), method: Some(&method), is_plain: true };
            prop_assert_eq!(Request::read(&bytes), Ok(expected));
        }
    }
}
