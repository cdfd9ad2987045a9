package rotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
	"github.com/secretmanager-io/secretmanager/internal/doctor/workload"
	"github.com/secretmanager-io/secretmanager/internal/vaultsetup"
	"github.com/secretmanager-io/secretmanager/transit"
)

// CheckRole checks that the role of the rotator has the policy of each key. It reads them with the user's token.
func (w *Chain) CheckRole(ctx context.Context, v Vault) result.Finding {
	job := w.Job
	switch {
	case w.absent:
		return result.OKf("the rotator is not installed")
	case job == nil:
		return result.Unknownf("the CronJob of the rotator could not be read")
	}
	role, found := workload.FlagValue(w.Args, "vault-role")
	if !found || role == "" {
		return result.OKf("the rotator does not log in: it has no --vault-role")
	}
	env, _, _ := workload.Environment(ctx, w.Kube, job.Namespace, Container(job))
	namespace, mount := w.rotatorMount(v, env)
	if !slices.Contains(v.Namespaces, namespace) {
		return result.Unknownf("the rotator uses Vault namespace %q, and the provider another one: set VAULT_NAMESPACE to "+
			"check it", namespace)
	}
	path := "auth/" + mount + "/role/" + role
	account := vaultsetup.Account{Namespace: job.Namespace,
		Name: cmp.Or(job.Spec.JobTemplate.Spec.Template.Spec.ServiceAccountName, "default")}
	data, err := v.Read(ctx, namespace, path)
	if err != nil {
		return result.Unknownf("%s", v.ReadError(path, err))
	}
	keys := slices.DeleteFunc(w.transitKeys(), func(k ciphertext.Key) bool {
		return strings.ContainsAny(k.Name, `*?[\`)
	})
	_, retire := workload.FlagValue(w.Args, "retire")
	s := rotatorSetup{Chain: w, vault: v, namespace: namespace, mount: mount, role: role, account: account, retire: retire}
	if data == nil {
		f := result.Brokenf("%s does not exist: the rotator cannot log in", path)
		return s.withSetup(ctx, f, keys)
	}
	if f := v.Binding(data, mount, role, account); f.State == result.Broken {
		return result.Brokenf("%s", f.Detail).WithInspect(result.InNamespace(namespace, "vault", "read", path)).
			WithAdvice("correct --vault-role of the rotator, or what the role is bound to")
	}
	var missing []string
	var lacking []ciphertext.Key
	policies := vaultsetup.Texts(data["token_policies"])
	for _, key := range keys {
		lacks, err := s.missingPolicies(ctx, key, policies)
		if err != nil {
			return result.Unknownf("%s", result.OneLine(err))
		}
		if len(lacks) > 0 {
			missing, lacking = append(missing, fmt.Sprintf("%s for %s", strings.Join(lacks, " and "), key)), append(lacking, key)
		}
	}
	if len(missing) > 0 {
		return s.withSetup(ctx, result.Brokenf("%s lacks a policy%s: the rotator cannot rotate the key", path,
			result.Named(missing)), lacking)
	}
	return result.OKf("%s, with the policies of %d keys", path, len(keys))
}

// Vault reads Vault with the user's token.
type Vault struct {
	Namespace  string   // of the provider
	Namespaces []string // that may be read
	Read       func(ctx context.Context, namespace, path string) (map[string]any, error)
	ReadError  func(path string, err error) string // message for an error of Read
	Session    func(namespace string) (*transit.Session, error)
	// Binding checks that a role, as it was read, accepts a service account.
	Binding func(data map[string]any, mount, role string, account vaultsetup.Account) result.Finding
}

// rotatorSetup is what the rotator needs in Vault.
type rotatorSetup struct {
	*Chain
	vault                  Vault
	namespace, mount, role string
	account                vaultsetup.Account
	retire                 bool
}

// missingPolicies returns the policies that the role lacks for a key. A role with a policy that vault-setup did not
// write is not judged.
func (s *rotatorSetup) missingPolicies(ctx context.Context, key ciphertext.Key, have []string) (lacks []string,
	err error) {
	setup := vaultsetup.Setup{Key: key, AuthMount: s.mount, AuthType: vaultsetup.AuthKubernetes, Audience: "vault",
		Rotator: &vaultsetup.Grant{Account: s.account, Role: s.role}, Retire: s.retire}
	for _, policy := range setup.Policies() {
		if !slices.Contains(setup.Roles()[0].Policies, policy.Name) {
			continue
		}
		if !slices.Contains(have, policy.Name) {
			lacks = append(lacks, policy.Name)
			continue
		}
		data, err := s.vault.Read(ctx, s.namespace, "sys/policies/acl/"+policy.Name)
		if err != nil {
			return nil, errors.New(s.vault.ReadError("sys/policies/acl/"+policy.Name, err))
		}
		if data == nil {
			lacks = append(lacks, policy.Name)
		}
	}
	if len(lacks) > 0 && slices.ContainsFunc(have, func(name string) bool {
		return !strings.HasPrefix(name,
			"secretmanager-")
	}) {
		return nil, errors.New("vault-setup did not write the policies of the role: only a run shows whether they suffice")
	}
	return lacks, nil
}

// withSetup adds the command that gives the role what it lacks. The operator selected the keys: the CronJob is in the
// namespace of the installation. It leaves out keys that do not exist: to create a key that was deleted does harm.
func (s *rotatorSetup) withSetup(ctx context.Context, f result.Finding, keys []ciphertext.Key) result.Finding {
	session, err := s.vault.Session(s.namespace)
	if err != nil {
		return f
	}
	for _, key := range keys {
		switch _, err := session.Key(ctx, key); {
		case errors.Is(err, transit.ErrNotFound):
			f = f.WithWarning(key.String() + " does not exist: correct --transit-key of the rotator, and never create a " +
				"key that " +
				"was deleted (docs/rotation.md#disaster-recovery)")
		case err == nil:
			words := []string{s.Program, "vault-setup", "--rotator-only", "--transit-key", key.Name}
			if key.Mount != ciphertext.DefaultTransitMount {
				words = append(words, "--transit-mount", key.Mount)
			}
			if s.mount != vaultsetup.AuthKubernetes {
				words = append(words, "--auth-mount", s.mount)
			}
			words = append(words, "--rotator-service-account", s.account.String(), "--rotator-role", s.role)
			if s.retire {
				words = append(words, "--retire")
			}
			f = f.WithFix(result.InNamespace(s.namespace, append(words, "--apply")...))
		}
	}
	return f
}
