package vaultsetup

// Document is a setup for other programs. Its JSON is stable: fields are added and never renamed.
type Document struct {
	Key      string           `json:"key"` // path in Vault
	Policies []PolicyDocument `json:"policies"`
	Roles    []RoleDocument   `json:"roles"`
}

// PolicyDocument is a policy of a [Document].
type PolicyDocument struct {
	Name   string `json:"name"`
	Policy string `json:"policy"` // HCL
}

// RoleDocument is a role of a [Document].
type RoleDocument struct {
	Path       string         `json:"path"` // in Vault
	For        string         `json:"for"`  // app, author or rotator
	Subject    string         `json:"serviceAccount"`
	Parameters map[string]any `json:"parameters"`
}

// Document returns the setup, which must have passed [Setup.Check].
func (s Setup) Document() Document {
	d := Document{Key: s.Key.String(), Policies: []PolicyDocument{}, Roles: []RoleDocument{}}
	for _, p := range s.Policies() {
		d.Policies = append(d.Policies, PolicyDocument{p.Name, p.HCL()})
	}
	for _, r := range s.Roles() {
		role := RoleDocument{Path: s.rolePath(r), For: r.Who, Subject: r.subject(), Parameters: map[string]any{}}
		for _, f := range r.fields() {
			role.Parameters[f.name] = f.value
		}
		d.Roles = append(d.Roles, role)
	}
	return d
}
