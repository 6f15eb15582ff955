"""A small edition of the embedded dataset, which is drawn in a tenth of a second."""
from retrieval.datasets.glyphs import cache as glyph_cache
from retrieval.datasets.glyphs import rendering as glyph_rendering


def use_few_fonts(monkeypatch, minimum=3):
    """Let the dataset know four fonts only, and ask for characters in ``minimum`` of them."""
    fonts = ('cmr10', 'cmb10', 'cmss10', 'cmtt10')
    monkeypatch.setattr(glyph_rendering, 'FAMILIES', {'Computer Modern': fonts})
    monkeypatch.setattr(glyph_cache, 'MIN_TYPEFACES', minimum)
    glyph_cache.fonts_key.cache_clear()
    monkeypatch.setattr(glyph_cache, 'fonts_key', glyph_cache.fonts_key.__wrapped__)
