"""Brings Superset's database up to date and makes its roles and accounts; run once a version, in Superset's environment."""

import json
import os
from pathlib import Path

ROLES = {
    "admin": ["Admin"],
    "operator": ["Alpha", "Analyst", "sql_lab"],
    "analyst": ["Gamma", "Analyst", "sql_lab"],
    "viewer": ["Viewer"],
}
"""viewer: sees dashboards, changes nothing; analyst: also own charts and SQL; operator: also
adds datasets. Charts and dashboards of the files are the admin's: Superset lets only owners and admins change them."""
_OWN_STATE = {"DashboardFilterStateRestApi", "DashboardPermalinkRestApi", "ExploreFormDataRestApi"}
"""What every page writes to remember its own filters."""
_MENUS = {"Home", "Dashboards"}


def _harmless(permission: str, view: str) -> bool:
    if permission == "menu_access":
        return view in _MENUS
    if permission == "can_write":
        return view in _OWN_STATE
    return permission in ("can_read", "can_get", "can_info", "can_list", "can_show", "can_dashboard", "can_dashboard_permalink", "can_time_range",
                          "can_query_form_data", "can_get_embedded", "can_get_drill_info", "can_csv", "can_query", "can_slice", "can_log", "can_userinfo", "can_recent_activity")


def main() -> None:
    """Migrate, synchronise permissions, set the accounts to the passwords of this place."""
    from flask_migrate import upgrade
    from superset.app import create_app

    accounts = json.loads(Path(os.environ["TIDEWATCH_SUPERSET"]).read_text())["accounts"]
    app = create_app()
    with app.app_context():
        upgrade()
        from superset.extensions import appbuilder, db, security_manager

        appbuilder.add_permissions(update_perms=True)
        security_manager.sync_role_definitions()
        everything = [security_manager.add_permission_view_menu(p, p) for p in ("all_datasource_access", "all_database_access")]
        reader = security_manager.add_role("Analyst")
        for permission in everything:
            security_manager.add_permission_role(reader, permission)
        onlooker = security_manager.add_role("Viewer")
        onlooker.permissions = [
            *everything[:1],
            *(p for p in security_manager.find_role("Gamma").permissions if _harmless(p.permission.name, p.view_menu.name)),
        ]
        for name, password in accounts.items():
            wanted = [security_manager.find_role(r) for r in ROLES[name]]
            user = security_manager.find_user(username=name)
            if user is None:
                security_manager.add_user(name, name.title(), "Tidewatch", f"{name}@tidewatch.invalid", wanted, password=password)
            else:
                user.roles = wanted
                security_manager.reset_password(user.id, password)
        db.session.commit()


if __name__ == "__main__":
    main()
