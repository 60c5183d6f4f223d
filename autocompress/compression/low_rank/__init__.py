"""Low rank: a layer's weight as a product of smaller ones, of several forms."""

from autocompress.compression.low_rank.technique import LowRank as LowRank
