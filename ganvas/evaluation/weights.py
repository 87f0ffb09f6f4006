"""Loads the networks that metrics need: Inception v3 for FID and KID, AlexNet for LPIPS, or the user's own.

The published weights are those that torch-fidelity (FID, KID) and torchmetrics (LPIPS) use. They are looked up in
torch's cache and downloaded the first time. A network of the user's own is a TorchScript file. Such a file can run
code, so one is loaded only where the user names it.
"""

import http.client
import importlib.util
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.error import HTTPError

import torch
from torch import Tensor

from ganvas.errors import UserError, add_place_to_errors
from ganvas.evaluation.feature_networks import FEATURE_SIZE, FeatureNetwork, PairNetwork
from ganvas.files import sha256
from ganvas.log import logger
from ganvas.messages import describe_error, describe_missing

FEATURES = "a network of features: uint8 images [N, 3, H, W] to [N, D]"
DISTANCES = "a network of two images: [N, 3, H, W] and [N, 3, H, W] in [-1, 1] to N distances"
LPIPS_SIZE = 64  # pixels a side of the images that a network is tried with


def load_feature_network(path: Path | None, device: str, option: str = "--feature-weights") -> FeatureNetwork:
    """Load the network for FID and KID: a TorchScript file, or Inception v3 with its published weights.

    A TorchScript network maps [N, 3, 299, 299] uint8 to [N, D]. One whose forward has an argument "return_features", as
    NVIDIA's Inception, is called with it set.

    Args:
        path: The file; None for the published weights.
        device: Where the network computes.
        option: How the file is given, for messages.

    Raises:
        UserError: The file is missing or not such a network, or the published weights cannot be had.
    """
    if path is None:
        return _load_inception(device, option)
    with add_place_to_errors(f"{option} {path}"):
        module = _load_script(path, device, FEATURES)
        arguments = {"return_features": True} if "return_features" in _argument_names(module) else {}

        def network(images: Tensor) -> Tensor:
            return module(images, **arguments)

        images = torch.zeros(2, 3, FEATURE_SIZE, FEATURE_SIZE, dtype=torch.uint8, device=device)
        features = _tried(network, images, wanted=FEATURES)
        if features.ndim != 2 or len(features) != len(images):
            shapes = f"{list(features.shape)} for images {list(images.shape)}"
            raise UserError(f"the network returns {shapes}. Expected: {FEATURES}.")
        return FeatureNetwork(network, f"TorchScript, {path.name}", sha256(path), device, features.shape[1])


def load_lpips(path: Path | None, device: str, option: str = "--lpips-weights") -> PairNetwork:
    """Load the network for LPIPS: a TorchScript file, or AlexNet with its published weights.

    A TorchScript network maps two images [N, 3, H, W] in [-1, 1] to N distances.

    Args:
        path: The file; None for the published weights.
        device: Where the network computes.
        option: How the file is given, for messages.

    Raises:
        UserError: The file is missing or not such a network, or the published weights cannot be had.
    """
    if path is None:
        return _load_alexnet(device, option)
    with add_place_to_errors(f"{option} {path}"):
        module = _load_script(path, device, DISTANCES)
        image = torch.zeros(1, 3, LPIPS_SIZE, LPIPS_SIZE, device=device)
        distances = _tried(module, image, image, wanted=DISTANCES)
        if distances.numel() != 1:
            shapes = f"{list(distances.shape)} for two images {list(image.shape)}"
            raise UserError(f"the network returns {shapes}. Expected: {DISTANCES}.")
        return PairNetwork(module, f"TorchScript, {path.name}", sha256(path), device)


def _load_script(path: Path, device: str, wanted: str) -> Any:
    if not path.is_file():
        raise UserError(f"{describe_missing(path, 'file')}. Give a TorchScript file of {wanted}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch calls TorchScript deprecated
            return torch.jit.load(path, map_location=device).eval()
    except Exception as error:  # a damaged file makes its reader raise anything
        raise UserError(
            f"is not a TorchScript file ({describe_error(error)}). Give one of {wanted}, written by torch.jit.save."
        ) from None


def _argument_names(module: Any) -> set[str]:
    return {argument.name for argument in module.forward.schema.arguments}


@torch.no_grad()
def _tried(network: Callable[..., Any], *inputs: Tensor, wanted: str) -> Tensor:
    """Return what a network makes of some images."""
    try:
        output = network(*inputs)
    except Exception as error:  # the network is the user's own
        reason = str(error).strip().rpartition("\n")[2]
        raise UserError(
            f"the network fails on images {list(inputs[0].shape)} ({reason}). Expected: {wanted}."
        ) from None
    if not isinstance(output, Tensor):
        raise UserError(f"the network returns {type(output).__name__}. Expected: {wanted}.")
    return output


def _load_inception(device: str, option: str) -> FeatureNetwork:
    """Load torch-fidelity's Inception v3, whose features are those of the first FID code."""
    if importlib.util.find_spec("torch_fidelity") is None:
        raise UserError(
            "fid and kid need torch-fidelity, which is not installed: pip install 'ganvas[metrics]'. "
            f"Or give {option} FILE, {FEATURES}."
        )
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

    path = published_weights(URL_INCEPTION_V3, "fid and kid", option)
    try:
        module = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(path)).to(device)
    except RuntimeError as error:  # of load_state_dict
        raise _damaged(path, URL_INCEPTION_V3, error) from None

    def network(images: Tensor) -> Tensor:
        return module(images)[0]

    name = f"Inception v3, torch-fidelity {version('torch-fidelity')}"
    return FeatureNetwork(network, name, sha256(path), device, 2048)


def _load_alexnet(device: str, option: str) -> PairNetwork:
    """Load LPIPS of torchmetrics, version 0.1 with AlexNet as the paper recommends for a metric."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    from torchvision.models import AlexNet_Weights

    url = AlexNet_Weights.DEFAULT.url
    path = published_weights(url, "lpips", option)
    try:
        metric = LearnedPerceptualImagePatchSimilarity("alex")
    except RuntimeError as error:
        raise _damaged(path, url, error) from None
    network = metric.net.to(device)  # the metric itself would keep all distances
    name = f"LPIPS with AlexNet, torchmetrics {version('torchmetrics')}"
    return PairNetwork(network, name, sha256(path), device)


def published_weights(url: str, metric: str, option: str) -> Path:
    """Return the file of published weights in torch's cache; download it if it is not there yet.

    It is checked to hold tensors and nothing that runs code, since its library loads it without that check.

    Args:
        url: The file's address; its name ends in the first digits of its SHA-256.
        metric: What it is needed for, for messages.
        option: The option that takes another file.

    Raises:
        UserError: It cannot be downloaded, or it is damaged.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    digits = path.stem.rpartition("-")[2]
    if not path.is_file():
        logger.info(f"Downloading the weights for {metric} from {url}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=digits, progress=False)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            if isinstance(error, HTTPError):
                error.close()  # it is the response, too
            raise UserError(
                f"{metric}: the published weights cannot be downloaded ({describe_error(error)}). Download {url} on a "
                f"machine with a network and copy it to {path}, or give {option} FILE (docs/metrics.md)."
            ) from None
    if not sha256(path).startswith(digits):
        raise _damaged(path, url, ValueError(f"its SHA-256 does not begin with {digits}"))
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError) as error:
        raise _damaged(path, url, error) from None
    return path


def _damaged(path: Path, url: str, error: Exception) -> UserError:
    return UserError(f"{path}: damaged weights ({describe_error(error)}). Remove the file, or replace it by {url}.")
