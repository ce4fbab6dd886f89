"""A OneRoster export, made up cell by cell."""

from __future__ import annotations

import io
import zipfile

ORGS = "sourcedId,status,dateLastModified,name,type,identifier,parentSourcedId\n"
USERS_11 = (
    "sourcedId,status,dateLastModified,enabledUser,orgSourcedIds,role,username,userIds,givenName,"
    "familyName,middleName,identifier,email,sms,phone,agentSourcedIds,grades,password\n"
)
USERS_12 = (
    "sourcedId,status,dateLastModified,enabledUser,username,userIds,givenName,familyName,"
    "middleName,identifier,email,sms,phone,agentSourcedIds,grades,password,userMasterIdentifier,"
    "resourceSourcedIds,preferredGivenName,preferredMiddleName,preferredFamilyName,"
    "primaryOrgSourcedId,pronouns\n"
)
ROLES = (
    "sourcedId,status,dateLastModified,userSourcedId,roleType,role,beginDate,endDate,"
    "orgSourcedId,userProfileSourcedId\n"
)
CLASSES = (
    "sourcedId,status,dateLastModified,title,grades,courseSourcedId,classCode,classType,location,"
    "schoolSourcedId,termSourcedIds,subjects,subjectCodes,periods\n"
)
ENROLLMENTS = (
    "sourcedId,status,dateLastModified,classSourcedId,schoolSourcedId,userSourcedId,role,primary,"
    "beginDate,endDate\n"
)
TERMS = (
    "sourcedId,status,dateLastModified,title,type,startDate,endDate,parentSourcedId,schoolYear\n"
)
DEMOGRAPHICS = "sourcedId,status,dateLastModified,birthDate,sex,asian,white\n"
FILES = ("orgs", "users", "roles", "classes", "enrollments", "academicSessions", "demographics")


def user_11(key: str, role: str, enabled: str = "true", status: str = "") -> str:
    return (
        f'{key},{status},,{enabled},"sch1,sch2",{role},login{key},{{Fed:{key}}},Given{key},Family{key},'
        f",,{key}@mail.example,,555-1234,,5,Secret{key}\n"
    )


def user_12(key: str, enabled: str = "true", status: str = "") -> str:
    return (
        f"{key},{status},,{enabled},login{key},{{Fed:{key}}},Given{key},Family{key},,,{key}@mail.example"
        f",,555-1234,,5,Secret{key},,,,,,sch1,\n"
    )


def role(key: str, name: str, dates: str = ",", status: str = "") -> str:
    return f"r-{key}-{name},{status},,{key},primary,{name},{dates},sch1,\n"


def a_class(key: str, title: str = "Piano", terms: str = "", status: str = "") -> str:
    return f'{key},{status},,"{title}",5,,,scheduled,,sch1,"{terms}",,,\n'


def enrollment(
    key: str, class_id: str, user: str, name: str, dates: str = ",", status: str = ""
) -> str:
    return f"{key},{status},,{class_id},sch1,{user},{name},,{dates}\n"


def manifest(version: str = "1.2", mode: str = "bulk", **files: str) -> str:
    stated = dict.fromkeys(FILES, mode) | files
    rows = "".join(f"file.{name},{value}\n" for name, value in stated.items())
    return f"propertyName,value\nmanifest.version,1.0\noneroster.version,{version}\n{rows}"


def zipped(_compression: int = zipfile.ZIP_DEFLATED, /, **files: str | bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", _compression) as archive:
        for name, text in files.items():
            archive.writestr(f"{name}.csv", text)
    return packed.getvalue()


DISTRICT = ORGS + "dist,,,The District,district,,\nsch1,,,School One,school,,dist\n"


def school(**more: str | bytes) -> bytes:
    files: dict[str, str | bytes] = {
        "orgs": DISTRICT,
        "users": USERS_12 + user_12("t1") + user_12("s1") + user_12("s2"),
        "roles": ROLES + role("t1", "teacher") + role("s1", "student") + role("s2", "student"),
        "classes": CLASSES + a_class("c1"),
        "enrollments": ENROLLMENTS
        + enrollment("e1", "c1", "t1", "teacher")
        + enrollment("e2", "c1", "s1", "student")
        + enrollment("e3", "c1", "s2", "student"),
    }
    files |= more
    if "manifest" not in more:
        absent = {name: "absent" for name in FILES if name not in files}
        files["manifest"] = manifest(**absent)
    return zipped(**files)
