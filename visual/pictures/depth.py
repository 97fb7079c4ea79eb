"""Metres by colour."""

from collections.abc import Callable, Mapping

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tasks.base import Target
from tasks.depth import DepthTask
from tasks.depth_unit import metres
from visual.drawing import BLACK, fitted, font, greyed, with_strip
from visual.pictures.base import DrawOptions, Picture

WORST = 0.5  # the share of the truth from which errors look alike
ERROR_MARKS = {0: "0", 0.1: "10 %", 0.25: "25 %", WORST: "50 % off"}


class DepthPicture(Picture):
    task: DepthTask
    strip_lines = 2
    errors = "relative error"

    def draw(
        self, image: np.ndarray, prediction: Tensor | None, target: Target | None, options: DrawOptions
    ) -> np.ndarray:
        """Metres by colour, logarithmic over the range that is evaluated, for truth and prediction alike; with scale.

        Predictions fill the picture; measurements are dots on the image in grey. With `options.errors` a prediction
        shows at the measurements how far it is off, as a share of the true metres.
        """
        size = options.text_size(image.shape[1])
        if prediction is not None and target is not None and options.errors:
            errors = self.task.relative_errors(prediction, target)[0].cpu().numpy()
            picture = dots(greyed(image, 0, 128), errors, _error_colours(errors), errors)
            return self._with_scale(picture, _error_colours, np.linspace, (0, WORST), ERROR_MARKS, size)
        if prediction is not None:
            picture = self._colours(fitted(prediction[0].float().cpu().numpy(), image))
        else:
            assert target is not None  # one of them is given
            depth = metres(target["depth"][0].cpu(), torch.float32).numpy()
            depth = np.where(depth > 0, depth, np.nan)
            picture = dots(greyed(image, 120, 230), depth, self._colours(depth), -depth)
        near, cap = self.task.nearest, self.task.cap
        marks = {mark: f"{mark:g} m" for mark in (0.2, 0.5, 1, 2, 5, 10, 20, 40) if near <= mark <= 0.6 * cap}
        return self._with_scale(picture, self._colours, np.geomspace, (near, cap), marks | {cap: f"{cap:g} m"}, size)

    def caption(self, target: Target) -> str:
        depth = metres(target["depth"], torch.float64)
        measured = depth[depth > 0]
        if not len(measured):
            return "nothing measured"
        share = len(measured) / depth.numel()
        return f"{measured.min():.1f} to {measured.max():.1f} m on {share:.0%} of the pixels"

    def _colours(self, depth: np.ndarray) -> np.ndarray:
        """Metres, any shape H x W -> RGB. Near is bright."""
        place = np.log(np.clip(np.nan_to_num(depth, nan=self.task.cap), self.task.nearest, self.task.cap))
        place = (place - np.log(self.task.nearest)) / np.log(self.task.cap / self.task.nearest)
        return cv2.applyColorMap(255 - np.rint(255 * place).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]

    def _with_scale(
        self,
        picture: np.ndarray,
        colours: Callable[[np.ndarray], np.ndarray],
        space: Callable[..., np.ndarray],
        ends: tuple[float, float],
        marks: Mapping[float, str],
        size: int,
    ) -> np.ndarray:
        """The picture above a bar of the colours from end to end and words below them, as far as they have room."""
        canvas, pen = with_strip(picture, self.strip_lines, size)
        left, length = canvas.width // 10, canvas.width * 8 // 10
        values, top = space(*ends, length), picture.shape[0]
        bar = colours(values.astype(np.float32)[None].repeat(size, 0))
        canvas.paste(Image.fromarray(np.ascontiguousarray(bar)), (left, top + size // 2))
        places = [(left + float(np.searchsorted(values, mark - 1e-9)), text) for mark, text in marks.items()]
        half = {text: font(size).getlength(text) / 2 for _, text in places}
        x, last = places[-1]
        shown, border = [(min(x, canvas.width - half[last]), last)], 0.0
        for x, text in places[:-1]:
            if border + size / 2 <= x - half[text] and x + half[text] + size / 2 <= shown[0][0] - half[last]:
                shown, border = [*shown, (x, text)], x + half[text]
        for x, text in shown:
            pen.text((x, top + 1.7 * size), text, fill=BLACK, font=font(size), anchor="mt")
        return np.array(canvas)


def dots(picture: np.ndarray, values: np.ndarray, colours: np.ndarray, order: np.ndarray) -> np.ndarray:
    """On a picture of any size, a dot at the pixel of every value (h x w; NaN: none), the highest of `order` last."""
    rows, columns = np.nonzero(np.isfinite(values))
    by_order = np.argsort(order[rows, columns], kind="stable")
    rows, columns = rows[by_order], columns[by_order]
    scale = np.array(picture.shape[:2]) / values.shape
    radius = max(1, picture.shape[1] // 400, round(0.4 * scale[1]))
    places = zip((rows + 0.5) * scale[0], (columns + 0.5) * scale[1], colours[rows, columns].tolist(), strict=True)
    for y, x, colour in places:
        cv2.circle(picture, (int(x), int(y)), radius, colour, cv2.FILLED)
    return picture


def _error_colours(errors: np.ndarray) -> np.ndarray:
    """Shares of the truth, any shape H x W -> RGB. Large is bright."""
    levels = np.rint(255 * np.clip(np.nan_to_num(errors), 0, WORST) / WORST).astype(np.uint8)
    return cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]
