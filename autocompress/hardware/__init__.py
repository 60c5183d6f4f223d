"""Device profiles, latency tables and the estimates made from them."""

from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.pricing import CandidatePricer
from autocompress.hardware.profile import HardwareProfile
from autocompress.hardware.profiles import list_profiles, load_profile
from autocompress.hardware.table import LatencyTable

__all__ = [
    "CandidatePricer",
    "HardwareProfile",
    "LatencyPredictor",
    "LatencyTable",
    "list_profiles",
    "load_profile",
]
