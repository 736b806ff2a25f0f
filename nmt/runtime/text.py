"""Text that shows nothing, and scripts without spaces."""

import re

# White space, control characters, Unicode's "default ignorable" ones (zero-width spaces and joiners, marks of
# direction, variation selectors, Hangul fillers), marks of annotation, and the empty Braille pattern.
_INVISIBLE = re.compile(
    "[\\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]*"
)

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fff\u3005-\u3007\u3021-\u3029\u3040-\u312f\u31a0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uf900-\ufaff\uff66-\uff9f\U00016f00-\U00018fff\U0001b000-\U0003ffff"
)
"""For a regular expression: characters of scripts without spaces: of Thailand, Laos, Burma, Cambodia and East Asia."""


def is_blank(text: str) -> bool:
    """Return whether a text is empty or has nothing but characters that cannot be seen, such as tab and U+200B."""
    return _INVISIBLE.fullmatch(text) is not None
