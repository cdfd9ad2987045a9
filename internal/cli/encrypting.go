package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/transit"
)

// EncryptingSession is a session of a verb that stores new ciphertext. It remembers the target that
// the library encrypts with.
type EncryptingSession struct {
	*transit.Session
	target transit.Target
}

// EncryptingVaultSession returns such a session with the token of the user.
func (p *Factory) EncryptingVaultSession() (*EncryptingSession, error) {
	session, err := p.VaultSession()
	if err != nil {
		return nil, err
	}
	return &EncryptingSession{Session: session}, nil
}

// Target overrides that of the session, which the library calls before it encrypts.
func (s *EncryptingSession) Target(ctx context.Context, info transit.KeyInfo, settle time.Duration) transit.Target {
	s.target = s.Session.Target(ctx, info, settle)
	return s.target
}

// NoteUnsettled tells the user if backups of Vault may lack the version of the key that the last
// values were encrypted with.
func (s *EncryptingSession) NoteUnsettled(out io.Writer, key fmt.Stringer) {
	if !s.target.Unsettled.IsZero() {
		display.Fprintf(out, "note: %s\n", Unsettled(key, s.target))
	}
}

// Unsettled describes a target that is unsettled, and what to do.
func Unsettled(key fmt.Stringer, target transit.Target) string {
	return display.Sprintf("%s: version %d is unsettled until %s: take a snapshot of Vault, because older backups do not "+
		"have it", key, target.Version, target.Unsettled.UTC().Format(time.RFC3339))
}
