//! One value of SQL, as a parameter or as a column of a row.

use bytes::Bytes;

use super::{Reader, WireError, Writer};

/// A value. The last three appear in rows only when a column was *declared* DATETIME, DATE,
/// TIMESTAMP or BOOLEAN: don't, since libdqlite aborts the process when such a column holds a value
/// of another type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A signed integer of 64 bits.
    Integer(i64),
    /// A float of 64 bits.
    Float(f64),
    /// A text; without NUL, which the protocol can't carry.
    Text(String),
    /// Bytes. Those read from a node are a slice of the message they came in.
    Blob(Bytes),
    /// Seconds since 1970; read only.
    UnixTime(i64),
    /// A date as text.
    Iso8601(String),
    /// A truth value.
    Boolean(bool),
}

/// Codes of the values' types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ValueKind {
    /// [`Value::Integer`].
    Integer = 1,
    /// [`Value::Float`].
    Float = 2,
    /// [`Value::Text`].
    Text = 3,
    /// [`Value::Blob`].
    Blob = 4,
    /// [`Value::Null`].
    Null = 5,
    /// [`Value::UnixTime`].
    UnixTime = 9,
    /// [`Value::Iso8601`].
    Iso8601 = 10,
    /// [`Value::Boolean`].
    Boolean = 11,
}

impl ValueKind {
    /// The kind behind a code, if there is one.
    pub fn from_code(code: u8) -> Result<ValueKind, WireError> {
        Ok(match code {
            1 => ValueKind::Integer,
            2 => ValueKind::Float,
            3 => ValueKind::Text,
            4 => ValueKind::Blob,
            5 => ValueKind::Null,
            9 => ValueKind::UnixTime,
            10 => ValueKind::Iso8601,
            11 => ValueKind::Boolean,
            _ => return Err(WireError::Unknown { what: "type of value", code: code.into() }),
        })
    }
}

impl Value {
    /// Which type the value has on the wire.
    pub fn kind(&self) -> ValueKind {
        match self {
            Value::Null => ValueKind::Null,
            Value::Integer(_) => ValueKind::Integer,
            Value::Float(_) => ValueKind::Float,
            Value::Text(_) => ValueKind::Text,
            Value::Blob(_) => ValueKind::Blob,
            Value::UnixTime(_) => ValueKind::UnixTime,
            Value::Iso8601(_) => ValueKind::Iso8601,
            Value::Boolean(_) => ValueKind::Boolean,
        }
    }

    /// The type's name, for messages.
    pub fn kind_name(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Integer(_) => "integer",
            Value::Float(_) => "float",
            Value::Text(_) => "text",
            Value::Blob(_) => "blob",
            Value::UnixTime(_) => "unix time",
            Value::Iso8601(_) => "date",
            Value::Boolean(_) => "boolean",
        }
    }

    /// Roughly what the value takes on the wire; to reserve space.
    pub(crate) fn size_hint(&self) -> usize {
        match self {
            Value::Text(text) | Value::Iso8601(text) => text.len() + 8,
            Value::Blob(blob) => blob.len() + 16,
            _ => 8,
        }
    }

    pub(super) fn encode(&self, to: &mut Writer<'_>) -> Result<(), WireError> {
        match self {
            Value::Null => to.u64(0),
            Value::Integer(value) | Value::UnixTime(value) => to.u64(value.cast_unsigned()),
            Value::Float(value) => to.u64(value.to_bits()),
            Value::Text(text) | Value::Iso8601(text) => to.text(text, "value")?,
            Value::Blob(blob) => to.blob(blob, "value")?,
            Value::Boolean(value) => to.u64(u64::from(*value)),
        }
        Ok(())
    }

    pub(super) fn decode(kind: ValueKind, from: &mut Reader) -> Result<Value, WireError> {
        Ok(match kind {
            ValueKind::Null => {
                from.u64("null")?;
                Value::Null
            }
            ValueKind::Integer => Value::Integer(from.u64("integer")?.cast_signed()),
            ValueKind::UnixTime => Value::UnixTime(from.u64("time")?.cast_signed()),
            ValueKind::Float => Value::Float(f64::from_bits(from.u64("float")?)),
            ValueKind::Text => Value::Text(from.text("value")?),
            ValueKind::Iso8601 => Value::Iso8601(from.text("date")?),
            ValueKind::Blob => Value::Blob(from.blob("value")?),
            ValueKind::Boolean => Value::Boolean(from.u64("boolean")? != 0),
        })
    }
}

/// Makes a list of parameters: `params![1, "name", bytes]`.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        [$($crate::Value::from($value)),*]
    };
}

macro_rules! from {
    ($($type:ty => $value:ident $to:expr;)*) => {
        $(impl From<$type> for Value {
            fn from($value: $type) -> Value {
                $to
            }
        })*
    };
}

from! {
    i64 => value Value::Integer(value);
    i32 => value Value::Integer(value.into());
    u32 => value Value::Integer(value.into());
    u16 => value Value::Integer(value.into());
    f64 => value Value::Float(value);
    bool => value Value::Integer(value.into());
    &str => value Value::Text(value.to_string());
    String => value Value::Text(value);
    Bytes => value Value::Blob(value);
    Vec<u8> => value Value::Blob(value.into());
    &[u8] => value Value::Blob(Bytes::copy_from_slice(value));
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}
