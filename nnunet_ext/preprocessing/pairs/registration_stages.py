"""The optimisations of a registration: rigid, affine, B-spline, each from coarse to fine."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import SimpleITK as sitk

from nnunet_ext.preprocessing.pairs.image_pair import ImagePair, body_points, shrink_factors, shrunk

SAMPLES = 20_000
BSPLINE_SAMPLES = 10_000
BINS = 32
RIGID_LEVELS = (4, 2, 1)
AFFINE_LEVELS = (2, 1)
BSPLINE_LEVEL = 2
CONTROL_POINT_SPACING = 30.0
"""Of the B-spline, in mm; finer follows smaller changes, and folds more easily. A shorter axis has one cell."""


def no_movement(pair: ImagePair) -> sitk.Transform:
    """The identity, as a rigid transform about the current body's centre."""
    centre = body_points(pair.current_body).mean(axis=0)
    transform = sitk.Euler2DTransform() if len(centre) == 2 else sitk.Euler3DTransform()
    transform.SetCenter(centre.tolist())
    return transform


def first_guess(pair: ImagePair) -> sitk.Transform:
    """The best of: no movement, the images' centres on one another, the bodies' centres on one another."""
    bodies = [body_points(body).mean(axis=0) for body in (pair.current_body, pair.prior_body)]
    middles = [(image, [(size - 1) / 2 for size in image.GetSize()]) for image in (pair.current, pair.prior)]
    images = [np.asarray(image.TransformContinuousIndexToPhysicalPoint(middle)) for image, middle in middles]
    guesses = [no_movement(pair) for _ in range(3)]
    for guess, shift in zip(guesses[1:], (images[1] - images[0], bodies[1] - bodies[0])):
        guess.SetTranslation(shift.tolist())
    return max(guesses, key=pair.similarity)


def rigid(pair: ImagePair, start: sitk.Transform, *, seed: int) -> sitk.Transform:
    """Rotation and translation, from a rigid transform."""
    return _optimised_matrix(pair, start, RIGID_LEVELS, seed=seed)


def affine(pair: ImagePair, start: sitk.Transform, *, seed: int) -> sitk.Transform:
    """Rotation, translation, scaling and shearing, from a rigid transform."""
    transform = sitk.AffineTransform(pair.current.GetDimension())
    transform.SetCenter(start.GetCenter())
    transform.SetMatrix(start.GetMatrix())
    transform.SetTranslation(start.GetTranslation())
    return _optimised_matrix(pair, transform, AFFINE_LEVELS, seed=seed)


def bspline(pair: ImagePair, start: sitk.Transform, *, seed: int) -> sitk.Transform:
    """A cubic B-spline deformation, followed by the transform that it starts from."""
    current = pair.current
    cells = [
        max(1, round(size * spacing / CONTROL_POINT_SPACING))
        for size, spacing in zip(current.GetSize(), current.GetSpacing())
    ]
    deformation = sitk.BSplineTransformInitializer(current, cells, order=3)
    method = sitk.ImageRegistrationMethod()
    method.SetOptimizerAsLBFGSB(
        gradientConvergenceTolerance=1e-5,
        numberOfIterations=20,
        maximumNumberOfCorrections=5,
        maximumNumberOfFunctionEvaluations=30,
        costFunctionConvergenceFactor=1e7,
    )
    method.SetMovingInitialTransform(start)
    method.SetInitialTransform(deformation, inPlace=True)
    _run(method, pair, BSPLINE_LEVEL, samples=BSPLINE_SAMPLES, seed=seed)
    return sitk.CompositeTransform([start, deformation])


def _optimised_matrix(pair: ImagePair, start: sitk.Transform, levels: Sequence[int], *, seed: int) -> sitk.Transform:
    transform = type(start)(start)
    for level in levels:
        method = sitk.ImageRegistrationMethod()
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=1.0,
            minStep=1e-4,
            numberOfIterations=200,
            relaxationFactor=0.7,
            gradientMagnitudeTolerance=1e-8,
            estimateLearningRate=method.Once,
            maximumStepSizeInPhysicalUnits=level * min(pair.current.GetSpacing()),
        )
        method.SetInitialTransform(transform, inPlace=True)
        _run(method, pair, level, samples=SAMPLES, seed=seed)
    return transform


def _run(method: sitk.ImageRegistrationMethod, pair: ImagePair, level: int, *, samples: int, seed: int) -> None:
    """Optimise on images of `level` times the finest spacing; the method holds transform and optimiser."""
    spacing = level * min(pair.current.GetSpacing())
    factors = shrink_factors(pair.current, spacing)
    region = shrunk(pair.region, factors)
    voxels = int(sitk.GetArrayViewFromImage(region).sum())
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=BINS)
    method.SetMetricFixedMask(region)
    method.SetMetricSamplingStrategy(method.RANDOM)
    # the seed 0 stands for the time of day
    method.SetMetricSamplingPercentage(min(1.0, samples / voxels), seed + 1)
    method.SetInterpolator(sitk.sitkLinear)
    current, prior = shrunk(pair.current, factors), shrunk(pair.prior, shrink_factors(pair.prior, spacing))
    with _single_thread():
        method.Execute(current, prior)


@contextmanager
def _single_thread() -> Iterator[None]:
    """Sums over samples by several threads depend on which is first, whatever the method's own number of threads is."""
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
