"""Brings Superset's database up to date and makes its roles and accounts; run once a version, in Superset's environment."""

import json
import os
from pathlib import Path


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
        reader = security_manager.add_role("Analyst")
        security_manager.add_permission_role(
            reader, security_manager.add_permission_view_menu("all_datasource_access", "all_datasource_access"),
        )
        roles = {"admin": ["Admin"], "analyst": ["Gamma", "Analyst"]}
        for name, password in accounts.items():
            wanted = [security_manager.find_role(r) for r in roles[name]]
            user = security_manager.find_user(username=name)
            if user is None:
                security_manager.add_user(name, name.title(), "Tidewatch", f"{name}@tidewatch.invalid", wanted, password=password)
            else:
                user.roles = wanted
                security_manager.reset_password(user.id, password)
        db.session.commit()


if __name__ == "__main__":
    main()
