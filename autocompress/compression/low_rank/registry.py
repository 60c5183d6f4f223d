"""Forms of factorisation by name."""

from __future__ import annotations

from collections.abc import Mapping

from autocompress.compression.low_rank.base import Factorization
from autocompress.compression.low_rank.cp import Cp
from autocompress.compression.low_rank.spatial import SpatialSvd
from autocompress.compression.low_rank.svd import PlainSvd
from autocompress.compression.low_rank.tucker import Tucker
from autocompress.compression.low_rank.whitened import WhitenedSvd

FORMS: Mapping[str, Factorization] = {
    form.name: form for form in (PlainSvd(), WhitenedSvd(), Tucker(), Cp(), SpatialSvd())
}
