package transit

import (
	"context"
	"net/http"
	"strings"
	"time"
)

// storageTimeout bounds the request of InMemory.
const storageTimeout = 5 * time.Second

// InMemory reports whether Vault keeps its data in memory, as in dev mode, so that there
// are no backups of it. It needs no login. Without a response it returns false, which
// is the safe assumption.
func (c *Client) InMemory(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	var out struct {
		StorageType string `json:"storage_type"`
	}
	// Without a namespace: the path exists only in the root namespace.
	if failure := c.observed(ctx, request{op: OpSealStatus, doing: "reading the storage type", method: http.MethodGet,
		path: "sys/seal-status", out: &out}); failure != nil {
		return false
	}
	return strings.HasPrefix(out.StorageType, "inmem")
}

// Settle returns the settle time to use: the configured one, or else [DefaultSettle], or 0
// if Vault keeps its data in memory, because no backup can be restored there. A configured
// value of 0 means none, and a negative one means 0.
func (s *Session) Settle(ctx context.Context, configured time.Duration) time.Duration {
	switch {
	case configured != 0:
		return max(configured, 0)
	case s.client.InMemory(ctx):
		return 0
	}
	return DefaultSettle
}

// Target returns the version that stored ciphertext of a key should have, as
// [TargetVersion] does, for the configured settle time: see [Session.Settle].
func (s *Session) Target(ctx context.Context, info KeyInfo, configured time.Duration) Target {
	if configured == 0 {
		target := TargetVersion(info, DefaultSettle, info.ReadAt)
		if target.Version == info.Latest && target.Unsettled.IsZero() {
			return target // the storage makes no difference
		}
	}
	return TargetVersion(info, s.Settle(ctx, configured), info.ReadAt)
}
