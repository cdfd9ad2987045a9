package vaultsetup

// tokenTTL is the lifetime of a Vault token. It is short because a batch token cannot be
// revoked; a program that runs longer logs in again.
const tokenTTL = "15m"

// Role is a role of an auth mount, bound to one service account.
type Role struct {
	Name     string
	Who      string // app, author or rotator
	Account  Account
	Policies []string

	anyNamespace bool // bound to the service accounts of that name in all namespaces

	authType string
	audience string
}

// Roles returns the roles of all grants that are set.
func (s Setup) Roles() []Role {
	var roles []Role
	add := func(who string, g *Grant, policies ...Policy) {
		if g == nil {
			return
		}
		r := Role{Name: g.RoleName(), Who: who, Account: g.Account, anyNamespace: who == "app" && s.PerNamespace,
			authType: s.AuthType, audience: s.Audience}
		for _, p := range policies {
			r.Policies = append(r.Policies, p.Name)
		}
		roles = append(roles, r)
	}
	add("app", s.App, s.appPolicy())
	add("author", s.Author, s.authorPolicy())
	rotator := []Policy{s.rotatorPolicy()}
	if s.Retire {
		rotator = append(rotator, s.retirePolicy())
	}
	if s.Patterns {
		rotator = append(rotator, s.patternsPolicy())
	}
	add("rotator", s.Rotator, rotator...)
	return roles
}

// rolePath returns the path of a role in Vault.
func (s Setup) rolePath(r Role) string { return "auth/" + s.AuthMount + "/role/" + r.Name }

// field is a parameter of a role: a string, a list, a map or a bool.
type field struct {
	name  string
	value any
}

// binding returns the fields that determine which service accounts may log in.
func (r Role) binding() []field {
	if r.authType == AuthJWT && r.anyNamespace {
		return []field{
			{"role_type", "jwt"},
			{"bound_audiences", []string{r.audience}},
			{"bound_subject", ""},
			{"bound_claims", map[string]string{"/kubernetes.io/serviceaccount/name": r.Account.Name}},
			{"claim_mappings", map[string]string{"/kubernetes.io/namespace": namespaceMetadata}},
			// Another claim could be equal in two namespaces. Vault would map both to one
			// entity, with the namespace of the last login.
			{"user_claim", "sub"},
		}
	}
	if r.authType == AuthJWT {
		return []field{
			{"role_type", "jwt"},
			{"bound_audiences", []string{r.audience}},
			{"bound_subject", "system:serviceaccount:" + r.Account.Namespace + ":" + r.Account.Name},
		}
	}
	namespace := r.Account.Namespace
	if r.anyNamespace {
		namespace = "*"
	}
	return []field{
		{"bound_service_account_names", []string{r.Account.Name}},
		{"bound_service_account_namespaces", []string{namespace}},
		{selector, ""}, // it would allow more namespaces
		{"audience", r.audience},
	}
}

// subject returns the service account, for messages.
func (r Role) subject() string {
	if r.anyNamespace {
		return r.Account.Name + " of any namespace"
	}
	return r.Account.String()
}

const selector = "bound_service_account_namespace_selector"

// fields returns all fields of a new role.
func (r Role) fields() []field {
	var f []field
	for _, b := range r.binding() {
		if b.value != "" {
			f = append(f, b)
		}
	}
	if r.authType == AuthJWT && !r.anyNamespace {
		f = append(f, field{"user_claim", "sub"})
	}
	return append(f,
		field{"token_policies", r.Policies},
		field{"token_no_default_policy", true},
		// Batch tokens need no storage in Vault and have no lease.
		field{"token_type", "batch"},
		field{"token_ttl", tokenTTL},
		field{"token_max_ttl", tokenTTL},
	)
}

// preserved returns the fields that Vault resets when a role is written without them.
func (r Role) preserved(current map[string]any) []field {
	if r.authType == AuthJWT {
		return []field{{"role_type", "jwt"}, {"bound_claims_type", current["bound_claims_type"]}}
	}
	return nil
}
