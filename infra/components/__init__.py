"""Components that keep an app available on two workers. Safe defaults are on; `pod_spec_overrides` is the way out."""

from __future__ import annotations

from infra.components._app import App, AppArgs
from infra.components._controller import RightsArgs
from infra.components._parts import AutoscalingArgs, HelperArgs, IngressArgs, MountArgs, PortArgs
from infra.components.admission_policy import AdmissionPolicy, AdmissionPolicyArgs
from infra.components.auditor import Auditor, AuditorArgs, ShardedAuditor, ShardedAuditorArgs
from infra.components.data_guard import DataGuard
from infra.components.elected_controller import ElectedController, ElectedControllerArgs
from infra.components.gateway import Gateway, GatewayArgs
from infra.components.longhorn_settings import LonghornSettings, LonghornSettingsArgs
from infra.components.monitoring import Monitoring, MonitoringArgs
from infra.components.network_policies import NetworkPolicies, NetworkPoliciesArgs
from infra.components.node_agent import NodeAgent, NodeAgentArgs
from infra.components.priority_classes import PriorityClassArgs, PriorityClasses, PriorityClassesArgs
from infra.components.rebalancer import RebalanceArgs, Rebalancer
from infra.components.sharded_controller import ShardArgs, ShardedController, ShardedControllerArgs
from infra.components.shared_storage import SharedStorage, SharedStorageArgs, StorageClassArgs
from infra.components.single_writer_app import SingleWriterApp, SingleWriterAppArgs
from infra.components.solo_controller import SoloController, SoloControllerArgs
from infra.components.spread_app import SpreadApp, SpreadAppArgs
from infra.components.stateful_app import StatefulApp, StatefulAppArgs
from infra.components.workspace import Workspace, WorkspaceArgs

__all__ = [
    "AdmissionPolicy",
    "AdmissionPolicyArgs",
    "App",
    "AppArgs",
    "Auditor",
    "AuditorArgs",
    "AutoscalingArgs",
    "DataGuard",
    "ElectedController",
    "ElectedControllerArgs",
    "Gateway",
    "GatewayArgs",
    "HelperArgs",
    "IngressArgs",
    "LonghornSettings",
    "LonghornSettingsArgs",
    "Monitoring",
    "MonitoringArgs",
    "MountArgs",
    "NetworkPolicies",
    "NetworkPoliciesArgs",
    "NodeAgent",
    "NodeAgentArgs",
    "PortArgs",
    "PriorityClassArgs",
    "PriorityClasses",
    "PriorityClassesArgs",
    "RebalanceArgs",
    "Rebalancer",
    "RightsArgs",
    "ShardArgs",
    "ShardedAuditor",
    "ShardedAuditorArgs",
    "ShardedController",
    "ShardedControllerArgs",
    "SharedStorage",
    "SharedStorageArgs",
    "SingleWriterApp",
    "SingleWriterAppArgs",
    "SoloController",
    "SoloControllerArgs",
    "SpreadApp",
    "SpreadAppArgs",
    "StatefulApp",
    "StatefulAppArgs",
    "StorageClassArgs",
    "Workspace",
    "WorkspaceArgs",
]
