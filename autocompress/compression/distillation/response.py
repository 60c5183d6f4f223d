"""Response distillation: the teacher's softened answers beside the labels."""

from __future__ import annotations

from autocompress.compression.distillation.base import Distillation


class Response(Distillation):
    """``T^2 KL(teacher || student)`` of outputs softened by T; squared distance without classes."""

    name = "response"
    reference = "Hinton et al. 2015, arXiv:1503.02531"
