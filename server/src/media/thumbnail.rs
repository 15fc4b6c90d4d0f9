//! Makes thumbnails. Blocks and takes memory: whoever calls it sees to where and how often at once.
//!
//! What an image is comes from its first bytes, never from what was claimed of it, and how large it would become in
//! memory is known from its header before anything is decoded.

use std::io::{BufReader, Cursor, Read, Write};

use fast_image_resize::images::Image;
use fast_image_resize::{PixelType, ResizeOptions, Resizer};
use image::codecs::gif::{GifDecoder, GifEncoder, Repeat};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{AnimationDecoder, DynamicImage, Frame, Frames, ImageDecoder, ImageError, ImageFormat};
use image::{ImageReader, ImageResult, Limits, RgbImage, RgbaImage};

use super::size::{Size, Wanted};
use super::store::{Blob, Source};

/// Largest file that is read for a thumbnail: the decoder of JPEG holds all of it in memory.
const SOURCE_BYTES_MAX: u64 = 64 << 20;

/// Largest image: beyond what telephones take by default (24 megapixels), and a decoded JPEG of it has 96 MiB.
const PIXELS_MAX: u64 = 32 << 20;

/// What decoding one image may take. Four bytes per pixel at most; images with more come out smaller.
pub const DECODED_BYTES_MAX: u64 = PIXELS_MAX * 4;

/// Longest side, which keeps sums of two sides and rows within any decoder's arithmetic.
const SIDE_MAX: u32 = 1 << 16;

/// What all frames of an animation may have together before it is shown still: half a minute at 15 frames a second
/// in 640 by 480.
const ANIMATION_PIXELS_MAX: u64 = 450 * 640 * 480;

/// And how many frames before it is: two minutes at 15 a second. The smallest take some time each, whatever their size.
const ANIMATION_FRAMES_MAX: usize = 1_800;

/// And how many bytes it may have when it is made smaller. It is held in memory, kept on disk, and fetched by telephones; noise becomes
/// as large as there are pixels.
const ANIMATED_BYTES_MAX: usize = 16 << 20;

/// Bytes from which the format is told; the longest signature of those below has twelve.
const SIGNATURE_BYTES: u64 = 64;

/// JPEG quality of thumbnails: below it blocks begin to show, above it files grow without looking better.
const JPEG_QUALITY: u8 = 82;

/// From 1 (best palette) to 30 (fastest), for animated thumbnails.
const GIF_SPEED: i32 = 10;

/// A thumbnail, or the finding that the image itself serves as one.
#[derive(Debug)]
pub enum Made {
    /// The image is to be sent as it is, as the type that it really has.
    Original(&'static str),
    /// New bytes; they are worth keeping if the size is one of the variants.
    Image { bytes: Vec<u8>, is_variant: bool },
}

/// Why there is no thumbnail.
#[derive(Debug)]
pub enum Failure {
    /// Not an image of a kind that is decoded here (an encrypted one, for instance), or a damaged one.
    NotAnImage(String),
    /// Larger than what is decoded here.
    TooLarge,
    /// The file is not there, or not all of it.
    Lost,
    /// The file could not be read.
    Io(std::io::Error),
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Failure {
        match error {
            ImageError::Limits(_) => Failure::TooLarge,
            error => Failure::NotAnImage(error.to_string()),
        }
    }
}

/// Makes the thumbnail of a file.
pub fn make(mut blob: Blob, wanted: &Wanted) -> Result<Made, Failure> {
    if blob.size > SOURCE_BYTES_MAX {
        return Err(Failure::TooLarge);
    }
    let source = &mut *blob.source;
    let format = format(source)?;
    let mut decoder = ImageReader::with_format(rewound(source)?, format);
    decoder.limits(limits());
    let mut decoder = decoder.into_decoder()?;
    let stored = decoder.dimensions();
    if u64::from(stored.0) * u64::from(stored.1) > PIXELS_MAX || decoder.total_bytes() > DECODED_BYTES_MAX {
        return Err(Failure::TooLarge);
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    drop(decoder);
    let shown = turned(stored, orientation);
    let target = wanted.target(shown);
    let moves = is_animated(source, format)?;
    if target.is_none() && (wanted.animated || !moves) {
        return Ok(Made::Original(format.to_mime_type()));
    }
    let is_variant = target.is_some();
    let target = target.unwrap_or(shown);
    if wanted.animated
        && moves
        && let Ok(Some(bytes)) = animate(source, format, target)
    {
        return Ok(Made::Image { bytes, is_variant });
    }
    let bytes = still(source, format, turned(target, orientation), orientation)?;
    Ok(Made::Image { bytes, is_variant })
}

/// The type of an image that [`make`] made.
pub fn made_type(bytes: &[u8]) -> &'static str {
    infer::get(bytes).map_or("application/octet-stream", |kind| kind.mime_type())
}

/// What the first bytes say.
fn format(source: &mut dyn Source) -> Result<ImageFormat, Failure> {
    let mut signature = Vec::new();
    rewound(source)?.take(SIGNATURE_BYTES).read_to_end(&mut signature).map_err(Failure::Io)?;
    match infer::get(&signature).map(|kind| kind.mime_type()) {
        Some("image/png" | "image/apng") => Ok(ImageFormat::Png),
        Some("image/jpeg") => Ok(ImageFormat::Jpeg),
        Some("image/gif") => Ok(ImageFormat::Gif),
        Some("image/webp") => Ok(ImageFormat::WebP),
        Some(other) => Err(Failure::NotAnImage(format!("there are no thumbnails of {other}"))),
        None => Err(Failure::NotAnImage("this is not an image of a known kind".to_owned())),
    }
}

fn rewound(source: &mut dyn Source) -> Result<BufReader<&mut dyn Source>, Failure> {
    source.rewind().map_err(Failure::Io)?;
    Ok(BufReader::new(source))
}

fn limits() -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(SIDE_MAX);
    limits.max_image_height = Some(SIDE_MAX);
    limits.max_alloc = Some(DECODED_BYTES_MAX);
    limits
}

/// A size as it is after turning, or before: it is the same.
fn turned(size: Size, orientation: Orientation) -> Size {
    match orientation {
        Orientation::Rotate90
        | Orientation::Rotate270
        | Orientation::Rotate90FlipH
        | Orientation::Rotate270FlipH => (size.1, size.0),
        _ => size,
    }
}

fn is_animated(source: &mut dyn Source, format: ImageFormat) -> Result<bool, Failure> {
    Ok(match format {
        ImageFormat::Png => PngDecoder::with_limits(rewound(source)?, limits())?.is_apng()?,
        ImageFormat::WebP => WebPDecoder::new(rewound(source)?)?.has_animation(),
        ImageFormat::Gif => frames(source, format)?.take(2).filter(ImageResult::is_ok).count() > 1,
        _ => false,
    })
}

/// The frames of an animation, each as large as the whole.
fn frames(source: &mut dyn Source, format: ImageFormat) -> Result<Frames<'_>, Failure> {
    let source = rewound(source)?;
    Ok(match format {
        ImageFormat::Gif => {
            let mut decoder = GifDecoder::new(source)?;
            decoder.set_limits(limits())?;
            decoder.into_frames()
        }
        ImageFormat::WebP => {
            let mut decoder = WebPDecoder::new(source)?;
            decoder.set_limits(limits())?;
            decoder.into_frames()
        }
        _ => PngDecoder::with_limits(source, limits())?.apng()?.into_frames(),
    })
}

/// An animated thumbnail, as GIF; `None` if the animation is too long to be made smaller here. Errors: also if it does not become small.
fn animate(source: &mut dyn Source, format: ImageFormat, target: Size) -> Result<Option<Vec<u8>>, Failure> {
    let mut made = Bounded { bytes: Vec::new(), bytes_max: ANIMATED_BYTES_MAX };
    let mut encoder = GifEncoder::new_with_speed(&mut made, GIF_SPEED);
    encoder.set_repeat(Repeat::Infinite)?;
    let mut pixels = 0;
    for (number, frame) in frames(source, format)?.enumerate() {
        let frame = frame?;
        pixels += u64::from(frame.buffer().width()) * u64::from(frame.buffer().height());
        if pixels > ANIMATION_PIXELS_MAX || number >= ANIMATION_FRAMES_MAX {
            return Ok(None);
        }
        let delay = frame.delay();
        let smaller = resize(DynamicImage::ImageRgba8(frame.into_buffer()), target)?;
        encoder.encode_frame(Frame::from_parts(smaller.into_rgba8(), 0, 0, delay))?;
    }
    drop(encoder);
    Ok((pixels > 0).then_some(made.bytes))
}

/// What is written, up to a size.
struct Bounded {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Write for Bounded {
    /// Errors: when it would be larger.
    fn write(&mut self, more: &[u8]) -> std::io::Result<usize> {
        if more.len() > self.bytes_max - self.bytes.len() {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.write(more)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A still thumbnail: PNG where there is something to see through, else JPEG. `target` is before turning.
fn still(
    source: &mut dyn Source,
    format: ImageFormat,
    target: Size,
    orientation: Orientation,
) -> Result<Vec<u8>, Failure> {
    let mut reader = ImageReader::with_format(rewound(source)?, format);
    reader.limits(limits());
    let mut smaller = resize(reader.decode()?, target)?;
    smaller.apply_orientation(orientation);
    let mut bytes = Cursor::new(Vec::new());
    // Many images could have transparent pixels and have none: screenshots, all GIFs.
    let is_opaque = smaller.as_rgba8().is_none_or(|image| image.pixels().all(|pixel| pixel[3] == u8::MAX));
    if is_opaque {
        let encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
        smaller.into_rgb8().write_with_encoder(encoder)?;
    } else {
        smaller.write_to(&mut bytes, ImageFormat::Png)?;
    }
    Ok(bytes.into_inner())
}

/// Fits an image into a size, cutting off what is beyond the size's ratio on both sides alike.
fn resize(image: DynamicImage, target: Size) -> Result<DynamicImage, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::NotAnImage(error.to_string());
    let has_alpha = image.color().has_alpha();
    let (width, height) = (image.width(), image.height());
    let (pixels, kind) = match has_alpha {
        true => (image.into_rgba8().into_raw(), PixelType::U8x4),
        false => (image.into_rgb8().into_raw(), PixelType::U8x3),
    };
    let large = Image::from_vec_u8(width, height, pixels, kind).map_err(|error| failed(&error))?;
    let mut small = Image::new(target.0, target.1, kind);
    let options = ResizeOptions::new().fit_into_destination(Some((0.5, 0.5)));
    Resizer::new().resize(&large, &mut small, &options).map_err(|error| failed(&error))?;
    let resized = match has_alpha {
        true => RgbaImage::from_raw(target.0, target.1, small.into_vec()).map(DynamicImage::ImageRgba8),
        false => RgbImage::from_raw(target.0, target.1, small.into_vec()).map(DynamicImage::ImageRgb8),
    };
    resized.ok_or_else(|| failed(&"the resized image has the wrong size"))
}

#[cfg(test)]
mod tests;
