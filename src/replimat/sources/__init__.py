"""Where bytes come from: a package registry, a URL or a mirror. Nothing that is fetched is ever executed.

    fetch(name)       put the members of a dataset card, byte for byte, into data/<name>/
    verify(name)      raise IntegrityError unless data/<name>/ is exactly what the card says
    manifest(names)   sha256 of every member of data/, checked on the way
    member_path(name, save_as)   path of one fetched member
    load_pickle(path, allowed)   a foreign pickle, restricted to an explicit list of globals

`data/` holds raw members and nothing else; downloads are kept in a user cache, so that a second fetch works offline.
"""

from replimat.sources.pickles import load_pickle
from replimat.sources.store import data_folder, fetch, manifest, member_path, verify

__all__ = ["data_folder", "fetch", "load_pickle", "manifest", "member_path", "verify"]
