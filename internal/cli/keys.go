package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/transit"
)

const (
	// similarTimeout bounds the search for similar names, which only improves a message.
	similarTimeout = 3 * time.Second
	// maxDistance is the number of letters in which a mistyped name may differ.
	maxDistance = 3
	// maxSimilar bounds the names in a message.
	maxSimilar = 5
)

// ExplainKey adds hints to an error about a key that does not exist: names that are similar, as far as the user may
// list the keys, and how to create the key. It returns other errors as they are.
func (p *Factory) ExplainKey(ctx context.Context, err error) error {
	var missing *transit.Error
	if !errors.As(err, &missing) || missing.Key.Name == "" || !errors.Is(err, transit.ErrNotFound) {
		return err
	}
	var given []string
	if h := (hintedError{}); errors.As(err, &h) {
		given = h.hints
	}
	if names := p.similarKeys(ctx, missing.Key); len(names) > 0 {
		given = append(given, "keys of "+missing.Key.Mount+" with a similar name: "+strings.Join(names, ", "))
	}
	return WithHint(err, append(given, createKeyHint(p.ProgramName, missing.Key))...)
}

// createKeyHint returns the command that creates a key with its policies and roles.
func createKeyHint(program string, key ciphertext.Key) string {
	flags := " --transit-key " + display.ShellWord(key.Name)
	if key.Mount != ciphertext.DefaultTransitMount {
		flags += " --transit-mount " + display.ShellWord(key.Mount)
	}
	return fmt.Sprintf("to create the key with its policies and roles: %s vault-setup%s -n NAMESPACE "+
		"--service-account ACCOUNT", program, flags)
}

// similarKeys returns names of keys that the user may have meant.
func (p *Factory) similarKeys(ctx context.Context, key ciphertext.Key) []string {
	ctx, cancel := context.WithTimeout(ctx, similarTimeout)
	defer cancel()
	session, err := p.VaultSession()
	if err != nil {
		return nil
	}
	names, err := session.ListKeys(ctx, key.Mount)
	if err != nil {
		return nil
	}
	return similar(key.Name, names)
}

// similar returns the names that differ from name in few letters, or contain it, the nearest first.
func similar(name string, names []string) []string {
	distance := func(other string) int { return levenshtein.ComputeDistance(name, other) }
	limit := min(maxDistance, (len(name)+1)/2)
	near := slices.DeleteFunc(slices.Clone(names), func(other string) bool {
		return distance(other) > limit && (name == "" || !strings.Contains(other, name) && !strings.Contains(name, other))
	})
	slices.SortStableFunc(near, func(a, b string) int { return distance(a) - distance(b) })
	return near[:min(len(near), maxSimilar)]
}
