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

// Outcome says how something in Vault compares to the setup.
type Outcome string

const (
	Created   Outcome = "created"   // was not there
	Changed   Outcome = "changed"   // was there and differed
	Unchanged Outcome = "unchanged" // is as it should be
)

// Change is one thing of a setup.
type Change struct {
	Outcome Outcome
	Kind    string // secrets engine, transit key, policy or role
	Name    string // path or name
	Note    string // what about it differs, or what to know; may be empty

	apply func(context.Context) error // nil when there is nothing to do
}

// Apply makes the change.
func (c Change) Apply(ctx context.Context) error {
	if c.apply == nil {
		return nil
	}
	return c.apply(ctx)
}

// ErrNoAuthMount is wrapped by Compare's error when the auth mount is not there.
// Only an operator can make it: it has to be told how to check tokens.
var ErrNoAuthMount = errors.New("there is no such auth mount")

// AuthType asks Vault of which kind an auth mount is. A missing one wraps
// [ErrNoAuthMount].
func AuthType(ctx context.Context, v *api.Client, mount string) (string, error) {
	m, err := authMount(ctx, v, mount)
	if err != nil {
		return "", err
	}
	if m.Type != AuthKubernetes && m.Type != AuthJWT {
		return "",
			fmt.Errorf("auth/%s is of type %q, which does not log service accounts in: name one of type %s or %s",
				mount, m.Type, AuthKubernetes, AuthJWT)
	}
	return m.Type, nil
}

// Accessor asks Vault for the name by which policies refer to an auth mount. A
// missing one wraps [ErrNoAuthMount].
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

// Compare reads what there is and returns what the setup makes of it, in the
// order in which it has to be done. It changes nothing. The error joins all
// that stands in the way; then nothing should be applied.
//
// What exists is only ever added to: a key is left as it is, and a role that
// exists keeps its policies and gets the missing ones, provided that it is
// bound to the very same service account. Vault has no compare-and-swap for
// roles: of two who add to one role at the same moment, one may lose.
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
	// Before the key: the policies tell for which namespace it is.
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

// engine compares the secrets engine, and returns whether it is mounted, if that
// could be found out.
func (c *comparison) engine(ctx context.Context) (mounted, known bool) {
	mount := c.setup.Key.Mount
	mounts, err := c.v.Sys().ListMountsWithContext(ctx)
	if err != nil {
		c.fail(explain("listing the secrets engines", err))
		return false, false
	}
	there, found := mounts[mount+"/"]
	if found && there.Type != "transit" {
		c.fail(fmt.Errorf("%s is a secrets engine of type %q, not transit: name another path with --transit-mount",
			mount, there.Type))
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

// namespaceKeys refuses a mount with a key that was not made for the namespace of its
// name: the pods of a namespace of that name would decrypt with it.
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
	for _, name := range texts(list.Data["keys"]) {
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
		c.fail(
			fmt.Errorf("%s holds keys that were not made for a namespace (%s): the pods of a namespace with such a name would "+
				"decrypt with that key. Use another mount with --transit-mount. If a key is a namespace's, restore its policy %s, "+
				"which vault-setup prints", mount, shorten(others),
				namespaceMarker(ciphertext.Key{Mount: mount, Name: others[0]}).Name))
	}
}

func (c *comparison) key(ctx context.Context, mounted bool) {
	path := c.setup.Key.String()
	var there *api.Secret
	if mounted {
		var err error
		if there, err = c.v.Logical().ReadWithContext(ctx, path); err != nil {
			c.fail(explain("reading "+path, err))
			return
		}
	}
	key := Change{Outcome: Unchanged, Kind: "transit key", Name: path}
	switch {
	case there == nil:
		key.Outcome = Created
		key.apply = func(ctx context.Context) error {
			return write(ctx, c.v, "creating", path, []field{{"type", "aes256-gcm96"}, {"derived", true}})
		}
	case there.Data["supports_encryption"] != true:
		c.fail(fmt.Errorf("%s is a key of type %v, which does not encrypt: name another key", path, there.Data["type"]))
	case there.Data["derived"] != true:
		key.Note = "it is not derived, so nothing binds its ciphertext to a place: only scope none works with it. " +
			"That cannot be changed on a key; for new Secrets use a key of another name"
	}
	c.changes = append(c.changes, key)
}

func (c *comparison) policy(ctx context.Context, p Policy) {
	// GetPolicy of the API client would answer an empty text for no policy.
	path := "sys/policies/acl/" + p.Name
	there, err := c.v.Logical().ReadWithContext(ctx, path)
	if err != nil {
		c.fail(explain("reading policy "+p.Name, err))
		return
	}
	want := p.HCL()
	policy := Change{Outcome: Unchanged, Kind: "policy", Name: p.Name}
	if there == nil {
		policy.Outcome = Created
	} else if have, _ := there.Data["policy"].(string); have != want {
		if !p.titles(have) {
			c.fail(
				fmt.Errorf("policy %s exists and does not begin with %q, so it is somebody else's: rename it, or use "+
					"another key", p.Name, p.titleLine()))
			return
		}
		policy.Outcome = Changed
	}
	if policy.Outcome != Unchanged {
		policy.apply = func(ctx context.Context) error {
			return write(ctx, c.v, "writing policy", path, []field{{"policy", want}})
		}
	}
	c.changes = append(c.changes, policy)
}

// titles reports whether the text of a policy begins with the policy's title.
func (p Policy) titles(text any) bool {
	s, _ := text.(string)
	first, _, _ := strings.Cut(s, "\n")
	return first == p.titleLine()
}

// shorten joins names, and counts those that would make it too long.
func shorten(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

func (c *comparison) role(ctx context.Context, r Role) {
	path := c.setup.rolePath(r)
	there, err := c.v.Logical().ReadWithContext(ctx, path)
	if err != nil {
		c.fail(explain("reading "+path, err))
		return
	}
	role := Change{Outcome: Unchanged, Kind: "role", Name: path}
	if there == nil {
		role.Outcome = Created
		role.apply = func(ctx context.Context) error { return write(ctx, c.v, "creating", path, r.fields()) }
		c.changes = append(c.changes, role)
		return
	}
	// A policy added to this role is a right given to all it is bound to.
	var differs []string
	for _, f := range r.binding() {
		if !slices.Equal(texts(there.Data[f.name]), texts(f.value)) {
			differs = append(differs, fmt.Sprintf("%s is %q and not %q", f.name, texts(there.Data[f.name]), texts(f.value)))
		}
	}
	if len(differs) > 0 {
		c.fail(
			fmt.Errorf("%s exists and is bound to others (%s): choose another role name for the %s, or change the "+
				"role by hand", path, strings.Join(differs, "; "), r.Who))
		return
	}
	policies := texts(there.Data["token_policies"])
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
				append(r.kept(there.Data), field{"token_policies", append(policies, added...)}))
		}
	}
	c.changes = append(c.changes, role)
}
