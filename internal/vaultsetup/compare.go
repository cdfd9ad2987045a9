package vaultsetup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// Outcome is the result of comparing an object in Vault with the setup.
type Outcome string

// All outcomes.
const (
	Created   Outcome = "created"   // did not exist
	Changed   Outcome = "changed"   // differed
	Unchanged Outcome = "unchanged" // did not differ
)

// Change is the change of one object of a setup.
type Change struct {
	Outcome Outcome
	Kind    string // secrets engine, transit key, policy or role
	Name    string // path or name
	Note    string // the difference, or a warning; may be empty

	apply func(context.Context) error // nil for no change
}

// Apply makes the change. It does nothing for [Unchanged].
func (c Change) Apply(ctx context.Context) error {
	if c.apply == nil {
		return nil
	}
	return c.apply(ctx)
}

// ErrNoAuthMount means that the auth mount does not exist. An operator has to create it,
// since it must be configured to verify tokens.
var ErrNoAuthMount = errors.New("there is no such auth mount")

// AuthType returns the type of an auth mount. The error wraps [ErrNoAuthMount] if it does
// not exist.
func AuthType(ctx context.Context, v *api.Client, mount string) (string, error) {
	m, err := authMount(ctx, v, mount)
	if err != nil {
		return "", err
	}
	if m.Type != AuthKubernetes && m.Type != AuthJWT {
		return "", fmt.Errorf("auth/%s is of type %q, which does not log service accounts in: use one of type %s or %s",
			mount, m.Type, AuthKubernetes, AuthJWT)
	}
	return m.Type, nil
}

// Accessor returns the accessor of an auth mount, by which policies refer to it. The error
// wraps [ErrNoAuthMount] if it does not exist.
func Accessor(ctx context.Context, v *api.Client, mount string) (string, error) {
	m, err := authMount(ctx, v, mount)
	if err != nil {
		return "", err
	}
	return m.Accessor, nil
}

func authMount(ctx context.Context, v *api.Client, mount string) (*api.AuthMount, error) {
	mounts, err := v.Sys().ListAuthWithContext(ctx)
	if err != nil {
		return nil, explain("listing the auth mounts", err)
	}
	m, ok := mounts[mount+"/"]
	if !ok {
		return nil, fmt.Errorf("auth/%s: %w", mount, ErrNoAuthMount)
	}
	return m, nil
}

// Compare returns the changes that the setup makes to a Vault, in the order in which to
// apply them. It changes nothing itself. The error joins all conflicts; then no change
// should be applied.
//
// The changes only add to existing objects: a key stays as it is, and a role keeps its
// policies and gets the missing ones, if it is bound to the same service account. Vault
// has no compare-and-swap for roles: if two processes add to a role at the same time, one
// addition may be lost.
func Compare(ctx context.Context, v *api.Client, s Setup) ([]Change, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	if s.PerNamespace && s.Accessor == AccessorPlaceholder {
		return nil, fmt.Errorf("the accessor of auth/%s is not known, and %s is not one", s.AuthMount, AccessorPlaceholder)
	}
	c := comparison{v: v, setup: s}
	mounted, known := c.engine(ctx)
	if s.PerNamespace && mounted {
		c.namespaceKeys(ctx)
	}
	// Before the key: a policy marks it as that of its namespace.
	for _, p := range s.Policies() {
		c.policy(ctx, p)
	}
	if known {
		c.key(ctx, mounted)
	}
	for _, r := range s.Roles() {
		c.role(ctx, r)
	}
	return c.changes, errors.Join(c.errs...)
}

type comparison struct {
	v       *api.Client
	setup   Setup
	changes []Change
	errs    []error
}

func (c *comparison) fail(err error) { c.errs = append(c.errs, err) }

// engine compares the secrets engine, and returns whether it is mounted, if that is known.
func (c *comparison) engine(ctx context.Context) (mounted, known bool) {
	mount := c.setup.Key.Mount
	mounts, err := c.v.Sys().ListMountsWithContext(ctx)
	if err != nil {
		c.fail(explain("listing the secrets engines", err))
		return false, false
	}
	existing, found := mounts[mount+"/"]
	if found && existing.Type != "transit" {
		c.fail(fmt.Errorf("%s is a secrets engine of type %q, not transit: use another path with --transit-mount",
			mount, existing.Type))
		return false, false
	}
	engine := Change{Outcome: Unchanged, Kind: "secrets engine", Name: mount}
	if !found {
		engine.Outcome = Created
		engine.apply = func(ctx context.Context) error {
			err := c.v.Sys().MountWithContext(ctx, mount, &api.MountInput{Type: "transit"})
			return explain("enabling the transit engine at "+mount, err)
		}
	}
	c.changes = append(c.changes, engine)
	return found, true
}

// namespaceKeys rejects a mount with a key that is not that of the namespace of its name:
// the pods of such a namespace would decrypt with it.
func (c *comparison) namespaceKeys(ctx context.Context) {
	mount := c.setup.Key.Mount
	list, err := c.v.Logical().ListWithContext(ctx, mount+"/keys")
	if err != nil {
		c.fail(explain("checking that "+mount+" holds only keys of namespaces, which needs list on "+mount+"/keys", err))
		return
	}
	if list == nil {
		return // no keys
	}
	var others []string
	for _, name := range Texts(list.Data["keys"]) {
		marker := namespaceMarker(ciphertext.Key{Mount: mount, Name: name})
		existing, err := c.v.Logical().ReadWithContext(ctx, "sys/policies/acl/"+marker.Name)
		if err != nil {
			c.fail(explain("reading policy "+marker.Name, err))
			return
		}
		if existing == nil || !marker.titles(existing.Data["policy"]) {
			others = append(others, name)
		}
	}
	if len(others) > 0 {
		c.fail(fmt.Errorf("%s holds keys that were not made for a namespace (%s): the pods of a namespace with such a name "+
			"would decrypt with that key. Use another mount with --transit-mount. If a key is that of a namespace, restore "+
			"its policy %s, which vault-setup prints", mount, shorten(others),
			namespaceMarker(ciphertext.Key{Mount: mount, Name: others[0]}).Name))
	}
}

func (c *comparison) key(ctx context.Context, mounted bool) {
	path := c.setup.Key.String()
	var existing *api.Secret
	if mounted {
		var err error
		if existing, err = c.v.Logical().ReadWithContext(ctx, path); err != nil {
			c.fail(explain("reading "+path, err))
			return
		}
	}
	key := Change{Outcome: Unchanged, Kind: "transit key", Name: path}
	switch {
	case existing == nil:
		key.Outcome = Created
		key.apply = func(ctx context.Context) error {
			return write(ctx, c.v, "creating", path, []field{{"type", "aes256-gcm96"}, {"derived", true}})
		}
	case !isTrue(existing.Data["supports_encryption"]):
		c.fail(fmt.Errorf("%s is a key of type %v, which does not encrypt: use another key", path, existing.Data["type"]))
	case !isTrue(existing.Data["derived"]):
		key.Note = "it is not derived, so its ciphertext is not bound to a location: only scope none works with it. " +
			"A key cannot be changed into a derived one; for new Secrets use another key"
	}
	c.changes = append(c.changes, key)
}

// isTrue reports whether a field of a response is true.
func isTrue(v any) bool {
	b, ok := v.(bool)
	return ok && b
}

func (c *comparison) policy(ctx context.Context, p Policy) {
	// GetPolicy of the API client returns an empty text for a missing policy.
	path := "sys/policies/acl/" + p.Name
	existing, err := c.v.Logical().ReadWithContext(ctx, path)
	if err != nil {
		c.fail(explain("reading policy "+p.Name, err))
		return
	}
	desired := p.HCL()
	policy := Change{Outcome: Unchanged, Kind: "policy", Name: p.Name}
	if existing == nil {
		policy.Outcome = Created
	} else if current, _ := existing.Data["policy"].(string); current != desired {
		if !p.titles(current) {
			c.fail(fmt.Errorf("policy %s exists and does not begin with %q, so it has another owner: rename it, or use "+
				"another key", p.Name, p.titleLine()))
			return
		}
		policy.Outcome = Changed
	}
	if policy.Outcome != Unchanged {
		policy.apply = func(ctx context.Context) error {
			return write(ctx, c.v, "writing policy", path, []field{{"policy", desired}})
		}
	}
	c.changes = append(c.changes, policy)
}

// titles reports whether the text of a policy begins with the title of p.
func (p Policy) titles(text any) bool {
	s, _ := text.(string)
	first, _, _ := strings.Cut(s, "\n")
	return first == p.titleLine()
}

// shorten joins the first ten names and counts the others.
func shorten(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

func (c *comparison) role(ctx context.Context, r Role) {
	path := c.setup.rolePath(r)
	existing, err := c.v.Logical().ReadWithContext(ctx, path)
	if err != nil {
		c.fail(explain("reading "+path, err))
		return
	}
	role := Change{Outcome: Unchanged, Kind: "role", Name: path}
	if existing == nil {
		role.Outcome = Created
		role.apply = func(ctx context.Context) error { return write(ctx, c.v, "creating", path, r.fields()) }
		c.changes = append(c.changes, role)
		return
	}
	// All service accounts of the role get the rights of an added policy.
	var differs []string
	for _, f := range r.binding() {
		if current := Texts(existing.Data[f.name]); !slices.Equal(current, Texts(f.value)) {
			differs = append(differs, fmt.Sprintf("%s is %q and not %q", f.name, current, Texts(f.value)))
		}
	}
	if len(differs) > 0 {
		c.fail(fmt.Errorf("%s exists and is bound to others (%s): choose another role name for the %s, or change the role "+
			"by hand", path, strings.Join(differs, "; "), r.Who))
		return
	}
	policies := Texts(existing.Data["token_policies"])
	var added []string
	for _, p := range r.Policies {
		if !slices.Contains(policies, p) {
			added = append(added, p)
		}
	}
	if len(added) > 0 {
		role.Outcome, role.Note = Changed, "added policy "+strings.Join(added, ", ")
		role.apply = func(ctx context.Context) error {
			return write(ctx, c.v, "adding policies to", path,
				append(r.preserved(existing.Data), field{"token_policies", append(policies, added...)}))
		}
	}
	c.changes = append(c.changes, role)
}
