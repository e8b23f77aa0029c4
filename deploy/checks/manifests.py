"""Checks what deploy/ ships for containers: compose file, Dockerfile, Kubernetes manifests.

    manifests.py check        by schema, and by what has to fit together; silent if all is well
    manifests.py self-test    breaks each rule once, in memory, and wants it found
    manifests.py commands     what each node is started with, one JSON object a line: the tests start them

Run by deploy/checks/python. A schema knows which fields there are; the rules below it know what they are for:
names that have to be the same in two places, and traps that once cost somebody a cluster.
"""

import copy
import json
import pathlib
import re
import subprocess
import sys

import compose_spec
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "deploy/compose/compose.yaml"
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
KUBERNETES = ROOT / "deploy/kubernetes"
# The oldest with preStop.sleep, and the newest whose schema we have.
VERSIONS = ("1.30.0", "1.37.0")
# A stop in order takes ten seconds for requests and five for each group, and a flush.
GRACE_SECONDS = 60


class Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error, not the second one."""

    def construct_mapping(self, node, deep=False):
        own = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = {key for key in own if own.count(key) > 1}
        if twice:
            raise yaml.YAMLError(f"{node.start_mark}: {', '.join(sorted(twice))} stands twice")
        return super().construct_mapping(node, deep)


def flags(args):
    """`--name=value` and `--name` as a mapping."""
    return {name: value for name, _, value in (arg.partition("=") for arg in args)}


def one_cluster(where, nodes):
    """What is wrong with nodes that are to found one cluster. `nodes`: name of a container -> its flags."""
    peers = {given.get("--peers", "") for given in nodes.values()}
    if len(peers) != 1 or not all(peers):
        yield f"{where}: --peers differs: {sorted(peers)}"
    for what in ("--node-name", "--peer-addr", "--data-dir", "--http-addr"):
        if any(not given.get(what) for given in nodes.values()):
            yield f"{where}: a node has no {what}"
    if len({given.get("--node-name") for given in nodes.values()}) != len(nodes):
        yield f"{where}: two nodes have one name"
    own = [given.get("--peer-advertise", given.get("--peer-addr")) for given in nodes.values()]
    if sorted(own) != sorted(peers.pop().split(",")):
        yield f"{where}: --peers is not where the nodes are reached: {own}"


# Compose.


def compose_nodes(file):
    services = file.get("services", {})
    return {name: s for name, s in services.items() if any("--peer-addr" in a for a in s.get("command", []))}


def compose_problems(file):
    where = COMPOSE.relative_to(ROOT)
    try:
        compose_spec.PyCompose.from_yaml(yaml.safe_dump(file, sort_keys=False))
    except Exception as error:  # Of many types, none of them named.
        yield f"{where}: {error}"
        return
    nodes = compose_nodes(file)
    if len(nodes) != 3:
        yield f"{where}: {len(nodes)} nodes, not 3"
        return
    yield from one_cluster(where, {name: flags(node["command"]) for name, node in nodes.items()})
    mounted = []
    for name, service in file["services"].items():
        wrong = lambda what, name=name: f"{where}: {name}: {what}"  # noqa: E731
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            if source.startswith("."):
                if not (COMPOSE.parent / source).exists():
                    yield wrong(f"{source} is not there")
            elif source not in file.get("volumes", {}):
                yield wrong(f"no volume {source}")
            else:
                mounted.append(source)
                if name in nodes and target != flags(service["command"])["--data-dir"]:
                    yield wrong("its volume is not its data directory")
        for network in service.get("networks", {}):
            if network not in file.get("networks", {}):
                yield wrong(f"no network {network}")
        for other in service.get("depends_on", []):
            if other not in file["services"]:
                yield wrong(f"no service {other}")
        for key, wanted in {"read_only": True, "cap_drop": ["ALL"], "restart": "unless-stopped"}.items():
            if service.get(key) != wanted:
                yield wrong(f"{key} is not {wanted}")
        if "healthcheck" not in service:
            yield wrong("no healthcheck")
    if len(set(mounted)) != len(mounted):
        yield f"{where}: two nodes on one volume"
    for name, node in nodes.items():
        if str(node.get("user", "0")).split(":")[0] in ("0", "root"):
            yield f"{where}: {name} runs as root"
        grace = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", node.get("stop_grace_period", "10s"))
        if int(grace[1] or 0) * 60 + int(grace[2] or 0) < GRACE_SECONDS:
            yield f"{where}: {name}: stop_grace_period is below {GRACE_SECONDS} s"
        at = node["networks"].get("peers", {}).get("ipv4_address")
        if flags(node["command"])["--peer-addr"] != f"{at}:9080":
            yield f"{where}: {name} does not listen for nodes on the network of the nodes only"
    if not file["networks"]["peers"].get("internal") or "peers" in file["services"]["haproxy"]["networks"]:
        yield f"{where}: others are on the network of the nodes"
    balancer = file["services"]["haproxy"]["environment"]
    behind = sorted(value for name, value in balancer.items() if name.startswith("UNISON_NODE_"))
    if behind != sorted(f"{n['networks']['clients']['ipv4_address']}:8080" for n in nodes.values()):
        yield f"{where}: haproxy asks others than the nodes: {behind}"


# Kubernetes.


def by_kind(manifests, kind):
    return [m for m in manifests if m.get("kind") == kind]


def schema_problems(manifests):
    for manifest in manifests:
        name = f"{manifest.get('kind')}/{manifest.get('metadata', {}).get('name')}"
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                at = ".".join(str(part) for part in error.path)
                yield f"kubernetes {version}: {name}: {at}: {error.message}"
            except kubernetes_validate.SchemaNotFoundError:
                yield f"kubernetes {version}: {name}: no such kind in {manifest.get('apiVersion')}"


def kubernetes_commands(manifests, ordinals):
    """Pod name -> its arguments, as the kubelet expands them."""
    [sts] = by_kind(manifests, "StatefulSet")
    [container] = sts["spec"]["template"]["spec"]["containers"]
    commands = {}
    for ordinal in ordinals:
        pod = f"{sts['metadata']['name']}-{ordinal}"
        fields = {"metadata.name": pod, "metadata.namespace": "default"}
        known = {e["name"]: fields[e["valueFrom"]["fieldRef"]["fieldPath"]] for e in container.get("env", [])}
        # Unknown ones are left as they are, and then are no address.
        expand = lambda arg: re.sub(r"\$\((\w+)\)", lambda m: known.get(m[1], m[0]), arg)  # noqa: E731
        commands[pod] = [expand(arg) for arg in container["args"]]
    return commands


def kubernetes_problems(manifests, kustomization):
    schema = list(schema_problems(manifests))
    if schema:
        yield from schema
        return
    for name in kustomization["resources"]:
        if not (KUBERNETES / name).exists():
            yield f"kustomization: {name} is not there"
    there = {p.name for p in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    if there != set(kustomization["resources"]):
        yield f"kustomization: {sorted(there ^ set(kustomization['resources']))} is left out"
    [sts] = by_kind(manifests, "StatefulSet")
    spec, pod = sts["spec"], sts["spec"]["template"]["spec"]
    labels = sts["spec"]["template"]["metadata"]["labels"]
    [container] = pod["containers"]
    commands = kubernetes_commands(manifests, range(spec["replicas"]))
    yield from one_cluster("kubernetes", {name: flags(args) for name, args in commands.items()})
    if pod.get("enableServiceLinks", True):
        yield "StatefulSet: enableServiceLinks sets UNISONDB_ variables that no start takes"
    if spec.get("podManagementPolicy") != "Parallel":
        yield "StatefulSet: podManagementPolicy: the first is not ready before the others are there"
    if pod.get("terminationGracePeriodSeconds", 30) < GRACE_SECONDS:
        yield f"StatefulSet: terminationGracePeriodSeconds is below {GRACE_SECONDS}"
    if not pod["securityContext"].get("runAsNonRoot") or not pod["securityContext"].get("fsGroup"):
        yield "StatefulSet: runs as root, or cannot write its volume"
    if not container["securityContext"].get("readOnlyRootFilesystem"):
        yield "StatefulSet: readOnlyRootFilesystem is not set"
    for probe, path in {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}.items():
        if container.get(probe, {}).get("httpGet", {}).get("path") != path:
            yield f"StatefulSet: {probe} does not ask {path}"
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    claims = {c["metadata"]["name"] for c in spec["volumeClaimTemplates"]}
    if mounts.get(flags(container["args"])["--data-dir"]) not in claims:
        yield "StatefulSet: the data directory is on no volume of the pod's own"
    if set(mounts.values()) - claims - {v["name"] for v in pod["volumes"]}:
        yield "StatefulSet: a mount of no volume"
    for flag, value in flags(container["args"]).items():
        if flag.startswith("--peer-tls-") and not any(value.startswith(m + "/") for m in mounts):
            yield f"StatefulSet: {flag} is in no mount"
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    for what, selector in [
        ("StatefulSet", spec["selector"]["matchLabels"]),
        *((f"Service/{s['metadata']['name']}", s["spec"]["selector"]) for s in by_kind(manifests, "Service")),
        *((m["kind"], m["spec"]["selector"]["matchLabels"]) for m in by_kind(manifests, "PodDisruptionBudget")),
        *((m["kind"], m["spec"]["podSelector"]["matchLabels"]) for m in by_kind(manifests, "NetworkPolicy")),
    ]:
        if selector != labels:
            yield f"{what}: selects other pods: {selector}"
    services = {s["metadata"]["name"]: s["spec"] for s in by_kind(manifests, "Service")}
    own = services.get(spec["serviceName"], {})
    if own.get("clusterIP") != "None" or not own.get("publishNotReadyAddresses"):
        yield "Service of the peers: headless, and with publishNotReadyAddresses, or none is ever ready"
    for name, service in services.items():
        for port in service["ports"]:
            if ports.get(port["targetPort"]) != port["port"]:
                yield f"Service/{name}: no port {port['targetPort']} of the pods"
    clients = set(services) - {spec["serviceName"]}
    allowed = flags(next(iter(commands.values()))).get("--allowed-hosts", "").split(",")
    if not clients <= set(allowed):
        yield f"StatefulSet: --allowed-hosts lacks {sorted(clients - set(allowed))}"
    [budget] = by_kind(manifests, "PodDisruptionBudget")
    if budget["spec"].get("maxUnavailable") != 1:
        yield "PodDisruptionBudget: one at a time"
    [policy] = by_kind(manifests, "NetworkPolicy")
    for rule in policy["spec"]["ingress"]:
        named = {port["port"] for port in rule.get("ports", [])}
        if not named or named - set(ports):
            yield f"NetworkPolicy: no port of the pods: {sorted(named)}"
        pods = [f.get("podSelector", {}).get("matchLabels") for f in rule.get("from", [])]
        if "peer" in named and pods != [labels]:
            yield "NetworkPolicy: others than the pods reach the peer side"


# All of it.


def load():
    compose = yaml.load(COMPOSE.read_text(), Loader)
    manifests = []
    for path in sorted(KUBERNETES.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            manifests += [m for m in yaml.load_all(path.read_text(), Loader) if m]
    return compose, manifests, yaml.load((KUBERNETES / "kustomization.yaml").read_text(), Loader)


def hadolint(dockerfile):
    tool = pathlib.Path(sys.executable).parent / "hadolint"
    done = subprocess.run([tool, "--no-color", dockerfile], capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line] if done.returncode else []


def check():
    compose, manifests, kustomization = load()
    yield from compose_problems(compose)
    yield from kubernetes_problems(manifests, kustomization)
    yield from hadolint(DOCKERFILE)


def put(tree, path, value):
    """A copy of `tree` with `value` at the end of `path`; None takes it away."""
    tree = copy.deepcopy(tree)
    *way, last = path
    at = tree
    for part in way:
        at = at[part]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return tree


def self_test():
    """Yields what is broken and not found."""
    compose, manifests, kustomization = load()
    sts = next(n for n, m in enumerate(manifests) if m["kind"] == "StatefulSet")
    headless = next(n for n, m in enumerate(manifests) if m["metadata"]["name"] == "unisondb-peers")
    policy = next(n for n, m in enumerate(manifests) if m["kind"] == "NetworkPolicy")
    budget = next(n for n, m in enumerate(manifests) if m["kind"] == "PodDisruptionBudget")
    pod = (sts, "spec", "template", "spec")
    container = (*pod, "containers", 0)
    args = manifests[sts]["spec"]["template"]["spec"]["containers"][0]["args"]
    n1 = ("services", "n1")
    broken = [
        (compose, (*n1, "stop_grace_perod"), "2m", "stop_grace_perod"),
        (compose, (*n1, "stop_grace_period"), "soon", "soon"),
        (compose, (*n1, "stop_grace_period"), "10s", "below"),
        (compose, (*n1, "healthcheck"), None, "healthcheck"),
        (compose, (*n1, "user"), "0:0", "root"),
        (compose, (*n1, "read_only"), False, "read_only"),
        (compose, (*n1, "volumes"), ["n2:/var/unison/data"], "one volume"),
        (compose, (*n1, "volumes"), ["n4:/var/unison/data"], "no volume n4"),
        (compose, (*n1, "command", 3), "--peer-addr=:9080", "only"),
        (compose, (*n1, "command", 4), "--peers=172.30.81.12:9080", "--peers differs"),
        (compose, ("services", "haproxy", "environment", "UNISON_NODE_3"), "172.30.80.14:8080", "haproxy asks"),
        (compose, ("networks", "peers", "internal"), False, "others are on the network"),
        (manifests, (sts, "spec", "replica"), 3, "replica"),
        (manifests, (sts, "spec", "replicas"), "three", "three"),
        (manifests, (sts, "spec", "replicas"), 4, "not where the nodes are reached"),
        (manifests, (sts, "spec", "serviceName"), "unisondb", "headless"),
        (manifests, (sts, "spec", "podManagementPolicy"), None, "podManagementPolicy"),
        (manifests, (*pod, "enableServiceLinks"), None, "enableServiceLinks"),
        (manifests, (*pod, "terminationGracePeriodSeconds"), None, "terminationGracePeriodSeconds"),
        (manifests, (*pod, "securityContext", "fsGroup"), None, "cannot write"),
        (manifests, (*container, "securityContext", "readOnlyRootFilesystem"), None, "readOnlyRootFilesystem"),
        (manifests, (*container, "livenessProbe", "httpGet", "path"), "/readyz", "livenessProbe"),
        (manifests, (*container, "readinessProbe", "httpGets"), {}, "httpGets"),
        (manifests, (*container, "env"), [], "not where the nodes are reached"),
        (manifests, (*container, "args"), [a for a in args if "allowed-hosts" not in a], "--allowed-hosts"),
        (manifests, (*container, "volumeMounts", 0, "mountPath"), "/data", "on no volume"),
        (manifests, (headless, "spec", "publishNotReadyAddresses"), None, "publishNotReadyAddresses"),
        (manifests, (headless, "spec", "selector"), {"app": "unison"}, "selects other pods"),
        (manifests, (headless, "apiVersion"), "v2", "no such kind in v2"),
        (manifests, (budget, "spec", "maxUnavailable"), 2, "one at a time"),
        (manifests, (policy, "spec", "ingress", 0, "from"), None, "others than the pods"),
        (manifests, (policy, "spec", "ingress", 0, "ports", 0, "port"), "peers", "no port of the pods"),
        (kustomization, ("resources",), ["statefulset.yaml"], "left out"),
    ]
    for tree, path, value, word in broken:
        changed = put(tree, path, value)
        if tree is compose:
            found = list(compose_problems(changed))
        elif tree is manifests:
            found = list(kubernetes_problems(changed, kustomization))
        else:
            found = list(kubernetes_problems(manifests, changed))
        if not any(word in problem for problem in found):
            yield f"self-test: {'.'.join(map(str, path))} = {value!r} is not found by {word!r}: {found}"
    for text, word in [("a: 1\na: 2\n", "twice")]:
        try:
            yaml.load(text, Loader)
            yield f"self-test: {text!r} is not found"
        except yaml.YAMLError as error:
            if word not in str(error):
                yield f"self-test: {text!r}: {error}"
    # The image's own file without its last stage's user: hadolint's, from its standard input.
    bad = DOCKERFILE.read_text().replace("USER 65532:65532", "USER root").replace("COPY . .", "ADDD . .")
    tool = pathlib.Path(sys.executable).parent / "hadolint"
    if subprocess.run([tool, "-"], input=bad, capture_output=True, text=True, check=False).returncode == 0:
        yield "self-test: a Dockerfile with a word that is none is not found"


def commands():
    compose, manifests, _ = load()
    given = {name: node["command"] for name, node in compose_nodes(compose).items()}
    replicas = by_kind(manifests, "StatefulSet")[0]["spec"]["replicas"]
    # One more than there are: what a resize adds.
    for of, nodes in {"compose": given, "kubernetes": kubernetes_commands(manifests, range(replicas + 1))}.items():
        for name, args in nodes.items():
            yield json.dumps({"of": of, "name": name, "args": args})


def main():
    what = {"check": check, "self-test": self_test, "commands": commands}
    if len(sys.argv) != 2 or sys.argv[1] not in what:
        sys.exit(__doc__)
    lines = list(what[sys.argv[1]]())
    if sys.argv[1] == "commands":
        print("\n".join(lines))
    elif lines:
        sys.exit("\n".join(f"verify: {line}" for line in lines))


main()
