"""Dependency analysis: which channels of a model must live or die together."""

from prunec.graph.analysis import Analysis, Consumer, analyse
from prunec.graph.flow import Pin
from prunec.graph.groups import Group, Member

__all__ = ["Analysis", "Consumer", "Group", "Member", "Pin", "analyse"]
