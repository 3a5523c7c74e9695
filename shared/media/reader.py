"""The one function that turns a file into an image, as docs/images.md says."""

from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL import Image

from shared.errors import InvalidRequest
from shared.media import jpeg, modes, png, webp
from shared.media.orientation import SIDEWAYS, orientation, upright
from shared.media.profiles import is_kept, to_srgb

MAX_PIXELS: Final = 64 * 1024 * 1024
"""Of an image, of a mask and of a hint."""
FORMATS: Final = {"png": png.strip, "jpeg": jpeg.strip, "webp": webp.strip}
_LACKS_ROWS: Final = {"png": png.lacks_rows, "jpeg": jpeg.lacks_rows}
"""Of a webp libwebp says it."""
ALLOWED: Final = "an image that is a whole png, jpeg or webp of at most {most} pixels"
_BEGINNINGS: Final = (
    (png.SIGNATURE, "png"),
    (jpeg.START, "jpeg"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"%PDF", "pdf"),
    (b"<svg", "svg"),
    (b"<?xml", "xml"),
    (b"8BPS", "psd"),
    (b"\0\0\1\0", "ico"),
    (b"\0\0\0\x0cJXL ", "jpeg xl"),
    (b"\xff\x0a", "jpeg xl"),
    (b"\0\0\0\x0cjP  ", "jpeg 2000"),
    (b"\xff\x4f\xff\x51", "jpeg 2000"),
    (b"v/1\1", "exr"),
    (b"#?RADIANCE", "hdr"),
    (b"qoif", "qoi"),
    (b"\xab" + b"KTX", "ktx"),
    (b"DDS ", "dds"),
    (b"IIU\0", "raw"),
    (b"FUJIFILMCCD-RAW", "raw"),
)
_UNKNOWN: Final = ""
_BRANDS: Final = {
    b"avif": "avif",
    b"avis": "avif",
    b"heic": "heic",
    b"heix": "heic",
    b"heim": "heic",
    b"heis": "heic",
    b"hevc": "heic",
    b"hevx": "heic",
    b"mif1": "heif",
    b"msf1": "heif",
    b"crx ": "raw",
}
"""Of files in boxes (ISO/IEC 14496-12)."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """A decoded image, whose pixels lie as in its file."""

    image: Image.Image
    """In 8 bits: mode L, LA, RGB, RGBA or CMYK."""
    orientation: int
    profile: bytes | None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, upright."""
        width, height = self.image.size
        return (height, width) if self.orientation in SIDEWAYS else (width, height)

    def alpha(self) -> Image.Image | None:
        """How opaque its pixels are, upright; None if all of them are."""
        alpha = modes.alpha_of(self.image)
        return None if alpha is None else upright(alpha, self.orientation)

    def colours(self) -> Image.Image:
        """Upright and on white, in its own colours: mode L, RGB or CMYK."""
        return upright(modes.on_white(self.image), self.orientation)

    def shown(self, size: tuple[int, int] | None = None) -> Image.Image:
        """As a viewer shows it: upright, on white, in sRGB; mode RGB. Brought to `size` before it
        is converted; None: its own."""
        return to_srgb(self._own(size), self.profile)

    def kept(self, size: tuple[int, int] | None = None) -> tuple[Image.Image, bytes | None]:
        """What a result of `size` can keep of it, upright and on white, mode RGB: its own colours
        with their profile; as shown, without one, where there is none that a result can have."""
        own = self._own(size)
        if self.profile is None or own.mode != "RGB" or not is_kept(self.profile):
            return to_srgb(own, self.profile), None
        return own, self.profile

    def _own(self, size: tuple[int, int] | None) -> Image.Image:
        own = self.colours()
        return own if size is None else own.resize(size, Image.Resampling.LANCZOS)


def read_image(field: str, data: bytes) -> DecodedImage:
    """The image in the file `data`, wholly decoded, and refused before that if it has more than
    `MAX_PIXELS`. Raises `InvalidRequest` about `field`."""
    kind = _kind(data)
    found = _read(data, kind) if kind in FORMATS else _UNKNOWN
    if isinstance(found, DecodedImage):
        return found
    # Not raised where it was found: an error would keep the decoder, and its pixels, in memory.
    value = f"a {kind} file of {len(data)} bytes" if kind else f"{len(data)} bytes that are none"
    raise InvalidRequest(field, value + found, ALLOWED.format(most=MAX_PIXELS))


def _read(data: bytes, kind: str) -> DecodedImage | str:
    """An image, or what is wrong with it. Metadata never is the reason."""
    try:
        stripped = FORMATS[kind](data)
        image = Image.open(BytesIO(stripped.pixels), formats=(kind.upper(),))
        if image.width * image.height > MAX_PIXELS:
            return f" and {image.width}x{image.height} pixels"
        image.load()
        if kind in _LACKS_ROWS and _LACKS_ROWS[kind](stripped, image):
            return " that ends before its last row"
        pixels = modes.in_eight_bits(image)
        pixels.info = {}
        return DecodedImage(pixels, orientation(stripped.exif, stripped.xmp), stripped.profile)
    except MemoryError:
        raise
    # Decoders of other people's files raise anything: Pillow's own list is not complete.
    except Exception as error:
        return f" that cannot be read: {str(error) or type(error).__name__}"


def _kind(data: bytes) -> str:
    """The format that a file begins as; empty if it is not known."""
    if data[:4] == webp.RIFF and data[8:12] == webp.WEBP:
        return "webp"
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "video")
    start = data[:64].lstrip() if data[:1] in b" \t\r\n\xef" else data
    return next((kind for beginning, kind in _BEGINNINGS if start.startswith(beginning)), "")
