//! Protocol buffers, as far as a model of SentencePiece needs them: fields of a message, one after another.

/// A value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// Of the wire type 0.
    Whole(u64),
    /// Of the wire type 5.
    Float(f32),
    /// Of the wire type 2: a text, bytes or a message.
    Bytes(&'a [u8]),
    /// Of the wire type 1, which nothing here has.
    Long,
}

/// The fields of a message.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn whole(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let low = u64::from(byte & 0x7f);
            // The tenth byte has one bit left.
            if shift == 63 && low > 1 {
                return None;
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.whole()?;
        let value = match key & 7 {
            0 => Value::Whole(self.whole()?),
            1 => {
                self.take(8)?;
                Value::Long
            }
            2 => {
                let length = usize::try_from(self.whole()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Float(f32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), String>;

    /// A number and a value; after an error nothing follows.
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let left = self.rest.len();
        let found = self.field();
        if found.is_none() {
            self.rest = &[];
        }
        let bad = || {
            format!(
                "it is no model of SentencePiece: {left} bytes before its end nothing is a field"
            )
        };
        Some(found.ok_or_else(bad))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_their_order() {
        let message = [
            0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i', 0x1d, 0, 0, 0x80, 0x3f,
        ];
        let fields: Result<Vec<_>, _> = Fields::of(&message).collect();
        let wanted = [
            (1, Value::Whole(150)),
            (2, Value::Bytes(b"hi")),
            (3, Value::Float(1.0)),
        ];
        assert_eq!(fields.unwrap(), wanted);
    }

    #[test]
    fn what_claims_more_than_there_is_ends_with_an_error() {
        for message in [
            &[0x12, 0x7f, b'h'][..],
            &[0x08],
            &[0x1d, 0, 0],
            &[0x0b],
            &[
                0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
            ],
            &[
                0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02,
            ],
        ] {
            let mut fields = Fields::of(message);
            assert!(fields.next().unwrap().is_err(), "{message:?}");
            assert!(fields.next().is_none());
        }
    }
}
