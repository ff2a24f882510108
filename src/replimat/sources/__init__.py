"""Where bytes come from: a package registry, a URL or a mirror. Nothing that is fetched is ever executed.

    fetch(name)       put the members of a dataset card, byte for byte, into its folder
    verify(name)      raise IntegrityError unless that folder is exactly what the card says
    manifest(names)   sha256 of every member of data/, checked on the way
    member_path(name, save_as)   path of one fetched member
    load_pickle(path, allowed)   a foreign pickle, restricted to an explicit list of globals

data/ and data-paper/ hold raw members and nothing else. Downloads are kept in a user cache, so that a second fetch
works offline.
"""

from replimat.sources.pickles import load_pickle
from replimat.sources.store import fetch, folder_of, manifest, member_path, verify

__all__ = ["fetch", "folder_of", "load_pickle", "manifest", "member_path", "verify"]
