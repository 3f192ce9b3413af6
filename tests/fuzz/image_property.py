"""What must hold of any file at all that is loaded as an image."""

import numpy as np

from pagedup.guests.images import ImageError, identities, load
from pagedup.memory.layouts import PAGE

_MOST = 1 << 24  # bytes of an image that are worth the time to relocate, out of those that a few bytes can claim


def check_image(data: bytes, path: str) -> str:
    """Load the input as the file at `path`, which is written anew: what came of it, a kind of image or "refused".

    Loading it either raises an error of one line, or gives an image whose parts are consistent and whose names tell
    the bytes of its pages.
    """
    with open(path, "wb") as file:
        file.write(data)
    try:
        image = load(path)
    except ImageError as error:
        assert "\n" not in str(error)
        assert path in str(error)
        return "refused"
    end = 0
    for section in image.sections:
        assert end <= section.first_page and section.n_pages > 0
        end = section.first_page + section.n_pages
    assert end <= image.n_pages
    assert len(image.fixups) == len(image.imports) == image.n_pages
    assert image.n_pages * PAGE <= len(data) + (256 << 20) + PAGE
    if image.n_pages * PAGE > _MOST:
        return image.kind
    bases = [image.preferred_base]
    if image.relocatable:
        top = (1 << image.address_bits) - image.n_pages * PAGE
        bases += [base for base in (1 << 24, 1 << 30) if base <= top]
    pages = [image.pages(base) for base in bases]
    found = identities([image])
    for base, here in zip(bases, pages, strict=True):
        assert not ((here != pages[0]).any(1) & ~image.fixups).any()
        assert not here[found.zero].any()
        seen: dict[tuple[int, int], bytes] = {}
        parameters = found.parameter(slice(None), base)
        for page in np.flatnonzero(here.any(1)).tolist():
            name = (int(found.id[page]), int(parameters[page]))
            assert seen.setdefault(name, here[page].tobytes()) == here[page].tobytes()
    return image.kind
