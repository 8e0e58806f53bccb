"""The provider's renewals: fetched before each connection, walked from the invitation's key, remembered."""

from __future__ import annotations

from fedser.federation.trust import MAX_LINE, Trusted, walk
from fedser_client.http import Routes
from fedser_client.settings import SiteSettings
from fedser_client.state import SiteFolder

PATH = "/v1/fedser/trust"
_LIMIT = 1 << 20  # bytes of a chain; a renewal has about 1,500


def refresh(routes: Routes, folder: SiteFolder, settings: SiteSettings) -> SiteSettings:
    """Settings with the keys that the provider's chain leads to now.

    Raises:
        NetworkError: the provider cannot be reached, or does not answer like one.
        SignatureError, RollbackError, EnrolmentError: the chain is not the trusted key's, or leads back.
    """
    answer = routes.get(PATH, _LIMIT)
    if answer.status != 200:
        raise routes.strange(f"its renewals answer with status {answer.status}")
    lines = [line for line in answer.body.decode("utf-8", errors="replace").splitlines() if line.strip()]
    if any(len(line) > MAX_LINE for line in lines):
        raise routes.strange("its chain of renewals has an endless line")
    seen = None
    if settings.trusted_key is not None:
        seen = Trusted(settings.trusted_sequence, settings.trusted_key, settings.trusted_cas)
    now = walk(settings.order_key, lines, ca=settings.ca, seen=seen)
    if now == seen:
        return settings
    found = {"trusted_sequence": now.sequence, "trusted_key": now.order_key, "trusted_cas": now.cas}
    return folder.remember(settings.model_copy(update=found))
