"""The sections of the report page: a module each, found by looking into this folder.

Each has its template, `site/NAME.html.j2`. A module says where it stands (`SECTION`) and what its
template shows (`context`).
"""
