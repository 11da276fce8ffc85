"""evaluation.json and request.json of ``nnunet_ext evaluate``, as far as they are read again."""

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, field_validator, model_validator

from nnunet_ext.formats.names import problem_with_name
from nnunet_ext.messages import quoted

OnePiece: TypeAlias = Literal["foreground", "labels"]
"""What is one piece: all labels together, such as the parts of a heart, or each label by itself."""


class ScoredLabel(BaseModel):
    """The figures of one label."""

    model_config = ConfigDict(extra="allow")

    cases_not_annotated: StrictInt = 0


class ScoredSet(BaseModel):
    """The scores on one set of cases."""

    model_config = ConfigDict(extra="allow")

    dataset: StrictStr
    cases: StrictStr
    references: StrictStr | None = None
    instances: StrictStr | None = None
    threshold: float | None = None
    largest_component: OnePiece | None = None
    tolerances: dict[StrictStr, float] = {}
    overlap: float = 0
    number_of_cases: StrictInt | None = None
    labels: dict[StrictStr, ScoredLabel]

    @field_validator("dataset", "cases", "references")
    @classmethod
    def _names(cls, value: str | None) -> str | None:
        if value is not None and (problem := problem_with_name(value)):
            raise ValueError(f"{quoted(value)} cannot be the name of a folder: {problem}")
        return value

    @model_validator(mode="after")
    def _number(self) -> "ScoredSet":
        if self.number_of_cases is None and any(label.cases_not_annotated for label in self.labels.values()):
            raise ValueError("number_of_cases is missing")
        return self


class Origin(BaseModel):
    """Where predictions come from: request.json."""

    model: StrictStr | None = None
    predictions: StrictStr | None = None


class EvaluationJson(Origin):
    """evaluation.json."""

    folds: list[StrictInt | Literal["all"]] = []
    labels: list[StrictStr] = []
    partial: StrictBool = False
    dataset_json: StrictStr | None = None
    instances: StrictStr | None = None
    versions: dict[StrictStr, StrictStr] = {}
    mirroring: StrictBool = True
    checkpoint: StrictStr = ""
    datasets: list[ScoredSet] = Field(min_length=1)
