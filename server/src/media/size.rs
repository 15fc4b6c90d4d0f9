//! How large a thumbnail becomes: from what was asked for to one of few sizes, and from that and the image to pixels.
//!
//! Invariant: nothing is ever enlarged, and what is asked for at whatever size is answered from a bounded number of
//! variants, so that asking for all sizes fills no disk. Specification: client-server API, "Thumbnails".

/// How an image is fitted into a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Whole, within the size.
    Scale,
    /// Filling the size, its edges cut off.
    Crop,
}

/// Width and height in pixels.
pub type Size = (u32, u32);

/// The sizes into which images are scaled: those that the specification names, the small ones also for scaling, and
/// one for large screens. What is asked for larger than the last is answered with the image itself.
const SCALED: [Size; 6] = [(32, 32), (96, 96), (320, 240), (640, 480), (800, 600), (1600, 1200)];

/// The longer sides of cropped images. All are multiples of 16.
const CROPPED: [u32; 6] = [32, 96, 320, 640, 800, 1600];

/// A cropped image's shorter side is so many times the sixteenth part of the longer side: any ratio is met to within
/// a sixteenth, the usual ones (1:1, 4:3, 16:9) exactly.
const RATIO_STEPS: u64 = 16;

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// At least one pixel.
    pub width: u32,
    /// At least one pixel.
    pub height: u32,
    pub method: Method,
    /// Whether an image that moves may move.
    pub animated: bool,
}

impl Wanted {
    /// The size of the variant that answers this: at least as large as asked for; `None` beyond the largest.
    pub fn variant_size(&self) -> Option<Size> {
        let (width, height) = (self.width, self.height);
        match self.method {
            Method::Scale => SCALED.into_iter().find(|size| size.0 >= width && size.1 >= height),
            Method::Crop => {
                let (longer, shorter) = (u64::from(width.max(height)), u64::from(width.min(height)));
                let side = CROPPED.into_iter().find(|side| u64::from(*side) >= longer)?;
                let steps = (shorter * RATIO_STEPS).div_ceil(longer.max(1)).max(1);
                let other = (u64::from(side) * steps / RATIO_STEPS) as u32;
                Some(if width >= height { (side, other) } else { (other, side) })
            }
        }
    }

    /// The variant's name, by which it is kept; `None` beyond the largest.
    pub fn variant(&self) -> Option<String> {
        let (width, height) = self.variant_size()?;
        let method = match self.method {
            Method::Scale => "scale",
            Method::Crop => "crop",
        };
        let animated = if self.animated { "-animated" } else { "" };
        Some(format!("{width}x{height}-{method}{animated}"))
    }

    /// The pixels that an image of `image` pixels gets; `None` if it is to stay as it is.
    pub fn target(&self, image: Size) -> Option<Size> {
        if image.0 <= self.width && image.1 <= self.height {
            return None;
        }
        let size = self.variant_size()?;
        let target = match self.method {
            Method::Scale => scaled(image, size),
            Method::Crop => cropped(image, size),
        };
        (target != image).then_some(target)
    }
}

/// The largest size with the image's ratio that fits into `limit` and is not larger than the image.
fn scaled(image: Size, limit: Size) -> Size {
    if image.0 <= limit.0 && image.1 <= limit.1 {
        return image;
    }
    if u64::from(image.0) * u64::from(limit.1) > u64::from(image.1) * u64::from(limit.0) {
        (limit.0, part(image.1, limit.0, image.0))
    } else {
        (part(image.0, limit.1, image.1), limit.1)
    }
}

/// `wanted`, or as much of its ratio as the image can fill without being enlarged.
fn cropped(image: Size, wanted: Size) -> Size {
    if image.0 >= wanted.0 && image.1 >= wanted.1 {
        return wanted;
    }
    scaled(wanted, image)
}

/// `length * numerator / denominator`, rounded, at least 1.
fn part(length: u32, numerator: u32, denominator: u32) -> u32 {
    let denominator = u64::from(denominator.max(1));
    let product = u64::from(length) * u64::from(numerator);
    u32::try_from((product + denominator / 2) / denominator).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn wanted(width: u32, height: u32, method: Method) -> Wanted {
        Wanted { width, height, method, animated: false }
    }

    #[test]
    fn the_sizes_of_the_specification_are_met_exactly() {
        let sizes = [
            (32, 32, Method::Crop),
            (96, 96, Method::Crop),
            (320, 240, Method::Scale),
            (640, 480, Method::Scale),
            (800, 600, Method::Scale),
        ];
        for (width, height, method) in sizes {
            assert_eq!(wanted(width, height, method).variant_size(), Some((width, height)));
        }
        assert_eq!(wanted(96, 96, Method::Crop).variant().as_deref(), Some("96x96-crop"));
    }

    #[test]
    fn few_variants_answer_all_sizes_and_none_is_smaller() {
        for method in [Method::Scale, Method::Crop] {
            let mut variants = BTreeSet::new();
            for width in (1..2000).step_by(7) {
                for height in (1..2000).step_by(11) {
                    let asked = wanted(width, height, method);
                    if let Some(size) = asked.variant_size() {
                        assert!(size.0 >= width && size.1 >= height, "{asked:?} {size:?}");
                        variants.insert(size);
                    }
                }
            }
            assert!(variants.len() <= 6 * 2 * RATIO_STEPS as usize, "{}", variants.len());
        }
    }

    #[test]
    fn scaling_keeps_the_ratio_and_never_enlarges() {
        let target = |image, width, height| wanted(width, height, Method::Scale).target(image);
        assert_eq!(target((4000, 3000), 800, 600), Some((800, 600)));
        assert_eq!(target((4000, 2000), 800, 600), Some((800, 400)));
        assert_eq!(target((1000, 4000), 320, 240), Some((60, 240)));
        assert_eq!(target((100_000, 1), 32, 32), Some((32, 1)));
        assert_eq!(target((600, 400), 800, 600), None);
        assert_eq!(target((310, 230), 300, 200), None, "the variant has room for the image as it is");
        assert_eq!(target((5000, 5000), 3000, 3000), None, "beyond the largest variant");
    }

    #[test]
    fn cropping_fills_the_ratio_and_never_enlarges() {
        let target = |image, width, height| wanted(width, height, Method::Crop).target(image);
        assert_eq!(target((4000, 3000), 96, 96), Some((96, 96)));
        assert_eq!(target((4000, 3000), 50, 50), Some((96, 96)));
        assert_eq!(target((50, 1000), 96, 96), Some((50, 50)));
        assert_eq!(target((640, 480), 160, 90), Some((320, 180)));
        assert_eq!(target((90, 20), 96, 96), None);
    }
}
