package doctor

import (
	"context"
	"slices"
	"strings"

	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
	"github.com/secretmanager-io/secretmanager/internal/vaultsetup"
)

// maxRoles bounds the roles that are tried, each with a login.
const maxRoles = 8

// fittingRoles returns other roles that accept the service account and may decrypt with the
// key of the class. It reads the roles of the auth mount, if the user may, and tries those with the names that
// vault-setup gives. A login decides; without one, vault-setup must have written the role and its policy.
func (c *classCheck) fittingRoles(ctx context.Context) (names []string) {
	if c.account == "" {
		return nil
	}
	account := vaultsetup.Account{Namespace: c.Namespace, Name: c.account}
	candidates := []string{vaultsetup.ClassRoleName(account, c.Key)}
	if client, err := c.asUser(c.VaultNamespace); err == nil {
		list, err := client.Logical().ListWithContext(ctx, "auth/"+c.AuthMount+"/role")
		if err == nil && list != nil {
			candidates = append(candidates, vaultsetup.Texts(list.Data["keys"])...)
		}
	}
	tried := 0
	for _, name := range candidates {
		if name == c.Class.Role || slices.Contains(names, name) || tried == maxRoles {
			continue
		}
		other := *c
		other.Class.Role, other.role, other.login = name, nil, nil
		data, err := c.read(ctx, c.VaultNamespace, other.rolePath())
		if err == nil {
			if data == nil {
				continue
			}
			other.role = data
			if other.checkBinding().State == Broken || other.checkAudience(ctx).State == Broken {
				continue
			}
		}
		tried++
		if other.checkPolicy(ctx).State == OK || other.hasSetupPolicy(ctx) {
			names = append(names, name)
		}
	}
	return names
}

// hasSetupPolicy reports whether the role, which accepts the service account, has the policy of vault-setup for readers
// of the key.
func (c *classCheck) hasSetupPolicy(ctx context.Context) bool {
	if c.role == nil {
		return false
	}
	ours := vaultsetup.Setup{Key: c.Key}.Policies()[0]
	if !slices.Contains(vaultsetup.Texts(c.role["token_policies"]), ours.Name) {
		return false
	}
	data, err := c.read(ctx, c.VaultNamespace, "sys/policies/acl/"+ours.Name)
	return err == nil && data != nil && data["policy"] == ours.HCL()
}

// withRoles adds the fix for a class whose role does not exist, or does not accept the service account: another role
// that fits. It grants nothing, as Vault accepts the service account for that role already.
func (c *classCheck) withRoles(ctx context.Context, f result.Finding) result.Finding {
	fits := c.fittingRoles(ctx)
	if len(fits) == 0 {
		return f
	}
	f.Advice = ""
	if len(fits) == 1 {
		f.Detail += "; role " + fits[0] + " fits: it accepts service account " + c.account + " and may decrypt with " +
			c.Key.String()
	} else {
		f.Detail += "; these roles fit: " + strings.Join(fits, ", ")
	}
	for _, name := range fits {
		when := "the pods should log in as role " + name
		choices := c.parameterFixes(ctx, "roleName", c.Class.Role, name)
		if certain(choices) && len(fits) == 1 {
			return f.WithFix(choices[0].Fixes...)
		}
		for _, choice := range choices {
			if choice.When != "" {
				choice.When = ", and " + choice.When
			}
			f = f.WithChoice(when+choice.When, choice.Fixes...)
		}
	}
	if len(f.Choices) == 0 {
		f.Advice = "set roleName in volumeAttributes of the pod's volume, in the template of the pod"
	}
	return f
}

// parameterFixes returns the ways to replace the value of a parameter: in the class, or in the volume of the pod, which
// overrides the class. If others use the class, it is for a person to decide which. It returns none if only a new pod
// can have another value.
func (c *classCheck) parameterFixes(ctx context.Context, name, current, value string) []Alternative {
	if c.volume != nil {
		if _, overridden := c.volume.VolumeAttributes[name]; overridden {
			if fix := c.volumePatch(ctx, current, value, "volumeAttributes", name); fix != nil {
				return []Alternative{{Fixes: fix}}
			}
			return nil
		}
	}
	inClass := Alternative{Fixes: []string{c.replaceParameter(name, current, value)}}
	others, err := c.otherUsers(ctx)
	switch {
	case err != nil:
		inClass.When = "it is right for everyone who uses class " + c.name + " (you may not list pods)"
	case len(others) == 0:
		return []Alternative{inClass}
	default:
		inClass.When = "it is right for everyone who uses class " + c.name + ", such as pod " + others[0].Name +
			" of service account " + others[0].Spec.ServiceAccountName
	}
	if fix := c.volumePatch(ctx, nil, value, "volumeAttributes", name); fix != nil {
		return []Alternative{inClass, {When: "it is right only for this pod's controller", Fixes: fix}}
	}
	return []Alternative{inClass}
}

// certain reports whether there is one way, which affects nobody else.
func certain(choices []Alternative) bool { return len(choices) == 1 && choices[0].When == "" }

// replaceParameter returns the command that replaces a parameter of the class, and fails if it has changed meanwhile.
func (c *classCheck) replaceParameter(name, current, value string) string {
	path := "/spec/parameters/" + name
	patch := []operation{{"test", path, current}, {"replace", path, value}}
	if _, found := c.object.Spec.Parameters[name]; !found { // the default
		patch = []operation{{"test", path, nil}, {"add", path, value}}
	}
	return c.kubectl("patch", "secretproviderclass", c.name, "--type=json", "-p", jsonPatch(patch))
}
