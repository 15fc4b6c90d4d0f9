//! Thumbnails of images made here, and of files that are out to hurt.

use image::{Delay, GenericImageView, Rgba};

use super::*;
use crate::media::size::Method;

fn blob(bytes: Vec<u8>) -> Blob {
    Blob { size: bytes.len() as u64, source: Box::new(Cursor::new(bytes)) }
}

fn scale(width: u32, height: u32) -> Wanted {
    Wanted { width, height, method: Method::Scale, animated: false }
}

fn crop(width: u32, height: u32) -> Wanted {
    Wanted { width, height, method: Method::Crop, animated: false }
}

/// Left half red, right half blue, half transparent if `alpha` is.
fn picture(width: u32, height: u32, alpha: u8) -> DynamicImage {
    let pixel = |x, _| if x < width / 2 { Rgba([255, 0, 0, alpha]) } else { Rgba([0, 0, 255, alpha]) };
    DynamicImage::ImageRgba8(RgbaImage::from_fn(width, height, pixel))
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).expect("encodable");
    bytes.into_inner()
}

fn animation(width: u32, height: u32, frames: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, 30);
    for _ in 0..frames {
        let frame = picture(width, height, 255).into_rgba8();
        let delay = Delay::from_numer_denom_ms(100, 1);
        encoder.encode_frame(Frame::from_parts(frame, 0, 0, delay)).expect("encodable");
    }
    drop(encoder);
    bytes
}

fn made(bytes: Vec<u8>, wanted: &Wanted) -> (DynamicImage, &'static str) {
    match make(blob(bytes), wanted).expect("an image") {
        Made::Image { bytes, .. } => {
            (image::load_from_memory(&bytes).expect("what was made is an image"), made_type(&bytes))
        }
        Made::Original(kind) => panic!("the original, {kind}"),
    }
}

/// A PNG whose header claims a size and whose data is a few bytes.
fn png_claiming(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8], data: &[u8]| {
        bytes.extend((data.len() as u32).to_be_bytes());
        let checked = [kind, data].concat();
        bytes.extend(&checked);
        bytes.extend(crc32(&checked).to_be_bytes());
    };
    let sides = [width.to_be_bytes(), height.to_be_bytes()].concat();
    chunk(b"IHDR", &[&sides[..], &[8, 6, 0, 0, 0]].concat());
    chunk(b"IDAT", &[0x78, 0x9c, 0x63, 0x00, 0x00]);
    chunk(b"IEND", &[]);
    bytes
}

/// The check sum of PNG chunks (PNG specification, annex D).
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[test]
fn scales_and_crops() {
    let source = encoded(&picture(1000, 500, 255).into_rgb8().into(), ImageFormat::Png);
    let (image, kind) = made(source.clone(), &scale(320, 240));
    assert_eq!((image.dimensions(), kind), ((320, 160), "image/jpeg"));
    let (image, _) = made(source, &crop(96, 96));
    assert_eq!(image.dimensions(), (96, 96));
    let (left, right) = (image.get_pixel(10, 48), image.get_pixel(85, 48));
    assert!(left[0] > 200 && left[2] < 60, "cut from the middle: {left:?}");
    assert!(right[2] > 200 && right[0] < 60, "cut from the middle: {right:?}");
}

#[test]
fn what_can_be_seen_through_stays_so() {
    let (image, kind) = made(encoded(&picture(200, 200, 128), ImageFormat::WebP), &crop(96, 96));
    assert_eq!(kind, "image/png");
    assert!(image.get_pixel(20, 20)[3].abs_diff(128) < 3);
}

#[test]
fn small_images_stay_as_they_are_with_their_real_type() {
    for (format, kind) in
        [(ImageFormat::Png, "image/png"), (ImageFormat::Gif, "image/gif"), (ImageFormat::WebP, "image/webp")]
    {
        let source = encoded(&picture(30, 20, 255), format);
        match make(blob(source), &scale(64, 64)).expect("an image") {
            Made::Original(found) => assert_eq!(found, kind),
            Made::Image { .. } => panic!("{kind} was changed"),
        }
    }
}

#[test]
fn turns_as_the_camera_says() {
    let mut jpeg = encoded(&picture(400, 200, 255).into_rgb8().into(), ImageFormat::Jpeg);
    // TIFF, big endian: one entry, tag 0x0112 (orientation), short, one value, 6: turn by 90 degrees clockwise.
    let tiff = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let segment = [&[0xff, 0xe1][..], &(tiff.len() as u16 + 2).to_be_bytes(), tiff].concat();
    jpeg.splice(2..2, segment);
    let (image, _) = made(jpeg, &scale(96, 96));
    assert_eq!(image.dimensions(), (48, 96));
    let (top, bottom) = (image.get_pixel(24, 10), image.get_pixel(24, 85));
    assert!(top[0] > 200 && bottom[2] > 200, "red was left and is now above: {top:?} {bottom:?}");
}

#[test]
fn animations_move_only_when_asked() {
    let source = animation(200, 100, 3);
    let (still, kind) = made(source.clone(), &scale(96, 96));
    assert_eq!((still.dimensions(), kind), ((96, 48), "image/jpeg"));
    let moving = Wanted { animated: true, ..scale(96, 96) };
    let Made::Image { bytes, is_variant: true } = make(blob(source), &moving).expect("an image") else {
        panic!("not made smaller");
    };
    assert_eq!(made_type(&bytes), "image/gif");
    let frames = GifDecoder::new(Cursor::new(bytes)).expect("a GIF").into_frames();
    let frames = frames.collect_frames().expect("whole");
    assert_eq!(frames.len(), 3);
    assert_eq!(frames[0].buffer().dimensions(), (96, 48));
    assert_eq!(frames[0].delay().numer_denom_ms(), (100, 1));
}

#[test]
fn a_small_animation_is_stilled_or_sent_as_it_is() {
    let source = animation(40, 40, 2);
    let Made::Image { bytes, is_variant: false } =
        make(blob(source.clone()), &scale(96, 96)).expect("an image")
    else {
        panic!("it would move");
    };
    assert_ne!(made_type(&bytes), "image/gif");
    let moving = Wanted { animated: true, ..scale(96, 96) };
    assert!(matches!(make(blob(source), &moving), Ok(Made::Original("image/gif"))));
}

#[test]
fn an_animation_with_too_many_frames_is_shown_still() {
    let moving = Wanted { animated: true, ..scale(32, 32) };
    for (frames, kind) in [(ANIMATION_FRAMES_MAX, "image/gif"), (ANIMATION_FRAMES_MAX + 1, "image/jpeg")] {
        let Made::Image { bytes, .. } = make(blob(animation(34, 2, frames)), &moving).expect("an image")
        else {
            panic!("not made smaller");
        };
        assert_eq!(made_type(&bytes), kind, "{frames}");
    }
}

#[test]
fn what_is_made_is_bounded() {
    let mut made = Bounded { bytes: Vec::new(), bytes_max: 10 };
    made.write_all(b"012345").expect("there is room");
    made.write_all(b"6789").expect("there is room");
    assert!(made.write_all(b"a").is_err());
    assert_eq!(made.bytes, b"0123456789");
}

#[test]
fn decoder_bombs_are_refused_by_their_header() {
    for (width, height) in [(50_000, 50_000), (60_000, 1_000), (u32::MAX >> 1, 1), (1 << 16, 1 << 16)] {
        let refused = make(blob(png_claiming(width, height)), &crop(32, 32));
        assert!(matches!(refused, Err(Failure::TooLarge)), "{width}x{height}: {refused:?}");
    }
    let mut gif = animation(2, 2, 1);
    gif[6..10].copy_from_slice(&[0xff; 4]);
    assert!(matches!(make(blob(gif), &crop(32, 32)), Err(Failure::TooLarge)));
    let long = Blob { size: SOURCE_BYTES_MAX + 1, ..blob(encoded(&picture(9, 9, 255), ImageFormat::Png)) };
    assert!(matches!(make(long, &crop(32, 32)), Err(Failure::TooLarge)));
}

#[test]
fn what_is_no_image_or_half_of_one_is_refused() {
    let whole = [
        encoded(&picture(300, 300, 255), ImageFormat::Png),
        encoded(&picture(300, 300, 255), ImageFormat::WebP),
        animation(300, 300, 2),
    ];
    for bytes in whole {
        for keep in [12, 40, bytes.len() / 2] {
            let half = bytes.get(..keep).unwrap_or_default().to_vec();
            assert!(matches!(make(blob(half), &crop(32, 32)), Err(Failure::NotAnImage(_))), "{keep}");
        }
    }
    for other in
        [&b""[..], b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"\x00\x00\x00\x18ftypmp42"]
    {
        assert!(matches!(make(blob(other.to_vec()), &crop(32, 32)), Err(Failure::NotAnImage(_))));
    }
    // A JPEG that breaks off is completed with grey by its decoder; it must not fail otherwise than these.
    let jpeg = encoded(&picture(300, 300, 255).into_rgb8().into(), ImageFormat::Jpeg);
    for keep in 0..jpeg.len() {
        let cut = make(blob(jpeg.get(..keep).unwrap_or_default().to_vec()), &crop(32, 32));
        assert!(matches!(cut, Ok(Made::Image { .. }) | Err(Failure::NotAnImage(_))), "{keep}: {cut:?}");
    }
}
