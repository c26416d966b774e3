//! Columns of texts, which repeat for many rows in a row: written by the stretch and not by the row.
//!
//! The `parquet` crate's writer looks each row's value up in its dictionary and compares it with the page's bounds, which
//! was the most of what a segment took. What is written here is the same: a page with the dictionary, and pages that name
//! its entries in the hybrid encoding of run lengths (RLE_DICTIONARY of parquet's `Encodings.md`), of which the bit-packed
//! half is not used.

use super::write::{CheckedPages, ROWS_PER_PAGE, ZSTD_LEVEL};
use bytes::Bytes;
use foldhash::fast::RandomState;
use parquet::{
    basic::{BoundaryOrder, Compression, Encoding, Type, ZstdLevel},
    column::{
        page::{CompressedPage, Page, PageWriter as _},
        writer::ColumnCloseResult,
    },
    data_type::ByteArray,
    errors::ParquetError,
    file::{
        metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder},
        statistics::{Statistics, ValueStatistics},
        writer::TrackedWrite,
    },
    schema::types::ColumnDescPtr,
};
use std::collections::HashMap;

/// A dictionary is not larger than this; else the texts are not what repeats.
const DICTIONARY_BYTES: usize = 1 << 20;
/// Bounds are of texts of at most this length: every name and id.
const BOUND_BYTES: usize = 255;

/// A column as it grows: each text once, and for so many rows in a row, which.
#[derive(Default)]
pub(super) struct TextColumn {
    texts: Vec<Bytes>,
    places: HashMap<Bytes, u32, RandomState>,
    /// Of a page with all of `texts`.
    dictionary_bytes: usize,
    /// Places in `texts`, of which no two neighbours are the same.
    stretches: Vec<(u32, usize)>,
    /// The text of the rows that come next.
    text: Vec<u8>,
    /// Whether the last stretch has that text.
    is_last: bool,
}

impl TextColumn {
    /// The rows that follow have this text.
    pub(super) fn begin(&mut self, text: &[u8]) {
        if self.text != text {
            self.text.clear();
            self.text.extend_from_slice(text);
            self.is_last = false;
        }
    }

    pub(super) fn add(&mut self, rows: usize) -> Result<(), ParquetError> {
        if rows == 0 {
            return Ok(());
        }
        match self.stretches.last_mut().filter(|_| self.is_last) {
            Some((_, last)) => *last += rows,
            None => {
                let place = match self.places.get(self.text.as_slice()) {
                    Some(place) => *place,
                    None => {
                        let place = number(self.texts.len())?;
                        let text = Bytes::copy_from_slice(&self.text);
                        self.dictionary_bytes += size_of::<u32>() + text.len();
                        self.texts.push(text.clone());
                        self.places.insert(text, place);
                        place
                    }
                };
                self.stretches.push((place, rows));
                self.is_last = true;
            }
        }
        Ok(())
    }

    /// Begins a row group with the same text.
    pub(super) fn clear(&mut self) {
        self.texts.clear();
        self.places.clear();
        self.dictionary_bytes = 0;
        self.stretches.clear();
        self.is_last = false;
    }

    /// Whether its texts repeat: what is written here. Otherwise they are written as any other values.
    pub(super) fn repeats(&self) -> bool {
        self.dictionary_bytes <= DICTIONARY_BYTES
    }

    /// The text of each row.
    pub(super) fn each(&self) -> Vec<ByteArray> {
        let texts = |(place, rows): &(u32, usize)| {
            std::iter::repeat_n(ByteArray::from(self.texts[wide(*place)].clone()), *rows)
        };
        self.stretches.iter().flat_map(texts).collect()
    }

    /// The column as the bytes of its pages.
    pub(super) fn column(&self, column: &ColumnDescPtr) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
        let mut pages = TrackedWrite::new(Vec::new());
        let mut sink = CheckedPages::new(&mut pages);
        let mut index = ColumnIndexBuilder::new(Type::BYTE_ARRAY);
        index.set_boundary_order(BoundaryOrder::UNORDERED);
        let mut offsets = OffsetIndexBuilder::new();
        let (mut compressed, mut uncompressed, mut data_page_offset) = (0, 0, None);
        let dictionary = sink.write_page(self.dictionary_page()?)?;
        compressed += dictionary.compressed_size;
        uncompressed += dictionary.uncompressed_size;
        let mut rows = 0;
        for stretches in pages_of(&self.stretches) {
            let count: usize = stretches.iter().map(|(_, rows)| rows).sum();
            let spec = sink.write_page(self.data_page(&stretches, count)?)?;
            let offset = number(spec.offset)?;
            data_page_offset.get_or_insert(offset);
            offsets.append_row_count(number(count)?);
            offsets.append_offset_and_size(offset, number(spec.compressed_size)?);
            match bounds(stretches.iter().map(|(place, _)| self.texts[wide(*place)].as_ref())) {
                Some((least, most)) => index.append(false, least.to_vec(), most.to_vec(), 0, None),
                None => index.to_invalid(),
            }
            compressed += spec.compressed_size;
            uncompressed += spec.uncompressed_size;
            rows += count;
        }
        let mut metadata = ColumnChunkMetaData::builder(column.clone())
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
            .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY])
            .set_total_compressed_size(number(compressed)?)
            .set_total_uncompressed_size(number(uncompressed)?)
            .set_num_values(number(rows)?)
            .set_dictionary_page_offset(Some(number(dictionary.offset)?))
            .set_data_page_offset(data_page_offset.unwrap_or(0));
        if let Some((least, most)) = bounds(self.texts.iter().map(Bytes::as_ref)) {
            let of = |text: &[u8]| Some(ByteArray::from(text.to_vec()));
            let of_column = ValueStatistics::new(of(least), of(most), None, Some(0), false);
            metadata = metadata.set_statistics(Statistics::ByteArray(of_column));
        }
        let column_index = if index.valid() { Some(index.build()?) } else { None };
        let bytes: Bytes = pages.into_inner()?.into();
        let close = ColumnCloseResult {
            bytes_written: number(bytes.len())?,
            rows_written: number(rows)?,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index,
            offset_index: Some(offsets.build()),
        };
        Ok((bytes, close))
    }

    fn dictionary_page(&self) -> Result<CompressedPage, ParquetError> {
        let mut plain = Vec::new();
        for text in &self.texts {
            plain.extend_from_slice(&number::<u32>(text.len())?.to_le_bytes());
            plain.extend_from_slice(text);
        }
        let num_values = number(self.texts.len())?;
        let page = |buf| Page::DictionaryPage { buf, num_values, encoding: Encoding::PLAIN, is_sorted: false };
        Ok(CompressedPage::new(page(squeezed(&plain)?), plain.len()))
    }

    fn data_page(&self, stretches: &[(u32, usize)], rows: usize) -> Result<CompressedPage, ParquetError> {
        let last: u32 = number(self.texts.len().saturating_sub(1))?;
        let bits = u32::BITS - last.leading_zeros();
        let mut plain = vec![number(bits)?];
        for (place, rows) in stretches {
            let mut header = rows << 1;
            while header >= 0x80 {
                plain.push(header.to_le_bytes()[0] | 0x80);
                header >>= 7;
            }
            plain.push(header.to_le_bytes()[0]);
            plain.extend_from_slice(&place.to_le_bytes()[..wide(bits.div_ceil(8))]);
        }
        let page = Page::DataPage {
            buf: squeezed(&plain)?,
            num_values: number(rows)?,
            encoding: Encoding::RLE_DICTIONARY,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        Ok(CompressedPage::new(page, plain.len()))
    }
}

/// Stretches of as many rows as a page has.
fn pages_of(stretches: &[(u32, usize)]) -> Vec<Vec<(u32, usize)>> {
    let mut pages = Vec::new();
    let (mut page, mut room) = (Vec::new(), ROWS_PER_PAGE);
    for (place, rows) in stretches {
        let mut left = *rows;
        while left > 0 {
            let taken = left.min(room);
            page.push((*place, taken));
            left -= taken;
            room -= taken;
            if room == 0 {
                pages.push(std::mem::take(&mut page));
                room = ROWS_PER_PAGE;
            }
        }
    }
    if !page.is_empty() {
        pages.push(page);
    }
    pages
}

/// The least and the greatest; none where a text is too long to be one of them.
fn bounds<'a>(texts: impl Iterator<Item = &'a [u8]>) -> Option<(&'a [u8], &'a [u8])> {
    let mut found: Option<(&[u8], &[u8])> = None;
    for text in texts {
        if text.len() > BOUND_BYTES {
            return None;
        }
        found = Some(found.map_or((text, text), |(least, most)| (least.min(text), most.max(text))));
    }
    found
}

/// Texts of one source lie in one place.
pub(super) fn is_same(a: &[u8], b: &[u8]) -> bool {
    std::ptr::eq(a, b) || a == b
}

fn squeezed(plain: &[u8]) -> Result<Bytes, ParquetError> {
    let bytes = zstd::bulk::compress(plain, ZSTD_LEVEL).map_err(|error| ParquetError::External(Box::new(error)))?;
    Ok(bytes.into())
}

pub(super) fn wide(place: u32) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

pub(super) fn number<N>(n: impl TryInto<N>) -> Result<N, ParquetError> {
    n.try_into().map_err(|_| ParquetError::General("a segment is too large".to_owned()))
}
