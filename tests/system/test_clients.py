"""What other programs do with the node: dcmtk and Orthanc move and route studies to it and ask it to keep them."""

from __future__ import annotations

import subprocess
from contextlib import closing

import httpx
import pytest

from dicom_node.ledger import open_ledger
from dicom_node.settings import load_settings

pytestmark = pytest.mark.system

LUA = """
function OnStoredInstance(instanceId, tags, metadata)
  Delete(SendToModality(instanceId, "NODE"))
end
"""


@pytest.fixture
def pacs_of(tools, node, tmp_path):
    """An Orthanc that knows the node; with `lua`, it does what the script says."""
    started = []

    def start(*, lua: str = ""):
        scripts = []
        if lua:
            (tmp_path / "route.lua").write_text(lua)
            scripts = [str(tmp_path / "route.lua")]
        known = {"NODE": ["MARGINWATCH", "127.0.0.1", node.dicom_port]}
        pacs = tools.orthanc(tmp_path / "orthanc", modalities=known, lua_scripts=scripts)
        pacs.start()
        node.pacs = pacs  # the node sends its results there, so it knows where it is
        node.start()
        started.append(pacs)
        return pacs

    yield start
    node.stop()
    for pacs in started:
        pacs.stop()


def rest(pacs, path, **document):
    response = httpx.post(f"http://127.0.0.1:{pacs.http_port}{path}", json=document, trust_env=False, timeout=60)
    response.raise_for_status()
    return response.json()


def into(pacs, tools, folder):
    """Send a series to the PACS by dcmtk."""
    command = [tools.need("storescu", "dcmtk"), "-aec", "ORTHANC", "127.0.0.1", str(pacs.dicom_port)]
    subprocess.run([*command, *map(str, sorted(folder.glob("*.dcm")))], check=True, env={"TCP_NODELAY": "1"})


def has_all(node, tools, folder):
    """The study, once every file of the folder is at its place in the node's store."""
    count = len(list(folder.glob("*.dcm")))
    instances = node.folder / "data" / "instances"
    tools.wait_until(lambda: len(list(instances.rglob("*.dcm"))) == count, seconds=60)
    return tools.wait_until(lambda: node.study(patient_id="PHANTOM-0001"), seconds=30)


def test_movescu_has_a_study_moved_to_the_node(pacs_of, node, phantom, tools):
    pacs = pacs_of()
    into(pacs, tools, phantom.followups[0])
    (uid,) = {study["MainDicomTags"]["StudyInstanceUID"] for study in studies_of(pacs)}
    command = [tools.need("movescu", "dcmtk"), "-S", "-aec", "ORTHANC", "-aem", "MARGINWATCH", "127.0.0.1"]
    command += [str(pacs.dicom_port), "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid}"]
    subprocess.run(command, check=True, timeout=120)
    assert has_all(node, tools, phantom.followups[0])["study_instance_uid"] == uid


def studies_of(pacs):
    url = f"http://127.0.0.1:{pacs.http_port}/studies?expand"
    return httpx.get(url, trust_env=False, timeout=30).json()


def test_orthanc_routes_what_it_receives(pacs_of, node, phantom, tools):
    """By its Lua script, instance by instance, each on an association of its own."""
    into(pacs_of(lua=LUA), tools, phantom.followups[0])
    assert has_all(node, tools, phantom.followups[0])


def test_orthanc_gets_the_nodes_commitment(pacs_of, node, phantom, tools):
    """By REST it sends a study, and asks for commitment; the report comes on an association of the node's."""
    pacs = pacs_of()
    into(pacs, tools, phantom.followups[0])
    (study,) = [study["ID"] for study in studies_of(pacs)]
    rest(pacs, "/modalities/NODE/store", Resources=[study], Synchronous=True)
    stored = has_all(node, tools, phantom.followups[0])
    with closing(open_ledger(load_settings(node.config))) as ledger:
        known = ledger.instances(stored["study_instance_uid"])
    wanted = [[instance.sop_class_uid, instance.sop_instance_uid] for instance in known]
    for references, status in ((wanted, "Success"), ([*wanted, [wanted[0][0], "1.2.3.4"]], "Failure")):
        asked = rest(pacs, "/modalities/NODE/storage-commitment", DicomInstances=references)
        report = tools.wait_until(lambda path=asked["Path"]: reported(pacs, path), seconds=30)
        assert report["Status"] == status
        assert len(report["Success"]) == len(wanted)
    assert [failure["SOPInstanceUID"] for failure in report["Failures"]] == ["1.2.3.4"]


def reported(pacs, path):
    report = httpx.get(f"http://127.0.0.1:{pacs.http_port}{path}", trust_env=False, timeout=30).json()
    return report if report["Status"] != "Pending" else None
