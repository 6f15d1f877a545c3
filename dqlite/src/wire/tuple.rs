//! Several values in a row: the parameters of a statement, or one row of a result.
//!
//! The types stand before the values. A parameter's type takes a byte, after the count (one byte in
//! schema 0, four in schema 1); a column's takes half a byte, and the count is known already. What
//! is written is padded to words before the values begin:
//!
//! ```text
//! params, schema 1:  03 00 00 00 | 01 03 04 00 | integer … text … blob …
//! row of 3 columns:  31 04 00 00 00 00 00 00   | integer … text … blob …
//! ```

use super::{COLUMNS_MAX, PARAMS_MAX, Reader, Value, ValueKind, WORD_BYTES, WireError, Writer};

/// The values of one row, in the order of the columns.
pub type Row = Vec<Value>;

/// Writes parameters in schema 1. None at all are written as nothing: libdqlite takes an empty
/// tuple as well, but older versions misread it.
pub fn encode_params(params: &[Value], to: &mut Writer<'_>) -> Result<(), WireError> {
    if params.is_empty() {
        return Ok(());
    }
    if params.len() > PARAMS_MAX {
        let (value, max) = (params.len() as u64, PARAMS_MAX as u64);
        return Err(WireError::TooLarge { what: "number of parameters", value, max });
    }
    to.u32(params.len() as u32);
    for value in params {
        to.u8(value.kind() as u8);
    }
    to.pad();
    params.iter().try_for_each(|value| value.encode(to))
}

/// Reads parameters of the given schema; nothing left means that there are none.
pub fn decode_params(schema: u8, from: &mut Reader) -> Result<Vec<Value>, WireError> {
    if from.left() == 0 {
        return Ok(Vec::new());
    }
    let (count, before) = match schema {
        0 => (usize::from(from.u8("number of parameters")?), 1),
        1 => (from.u32("number of parameters")? as usize, 4),
        _ => return Err(WireError::Unknown { what: "schema", code: schema.into() }),
    };
    if count > PARAMS_MAX {
        let (value, max) = (count as u64, PARAMS_MAX as u64);
        return Err(WireError::TooLarge { what: "number of parameters", value, max });
    }
    let types = (before + count).next_multiple_of(WORD_BYTES) - before;
    let types = from.take(types as u64, "types of parameters")?;
    types[..count].iter().map(|code| Value::decode(ValueKind::from_code(*code)?, from)).collect()
}

/// Writes a row.
pub fn encode_row(row: &[Value], to: &mut Writer<'_>) -> Result<(), WireError> {
    if row.is_empty() {
        return Err(WireError::NoColumns);
    }
    if row.len() > COLUMNS_MAX {
        let (value, max) = (row.len() as u64, COLUMNS_MAX as u64);
        return Err(WireError::TooLarge { what: "number of columns", value, max });
    }
    for pair in row.chunks(2) {
        let high = pair.get(1).map_or(0, |value| value.kind() as u8);
        to.u8(pair[0].kind() as u8 | high << 4);
    }
    to.pad();
    row.iter().try_for_each(|value| value.encode(to))
}

/// Reads a row of `columns` values.
pub fn decode_row(columns: usize, from: &mut Reader) -> Result<Row, WireError> {
    if columns == 0 {
        return Err(WireError::NoColumns);
    }
    let types = columns.div_ceil(2).next_multiple_of(WORD_BYTES);
    let types = from.take(types as u64, "types of columns")?;
    let code = |column: usize| {
        let pair = types[column / 2];
        if column.is_multiple_of(2) { pair & 0x0f } else { pair >> 4 }
    };
    (0..columns).map(|column| Value::decode(ValueKind::from_code(code(column))?, from)).collect()
}
