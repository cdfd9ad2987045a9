package testenv

import (
	"context"
	"errors"
	"fmt"
)

// TrustAPIServer makes the kubernetes auth method at mount (such as "kubernetes") review
// tokens at the server, with the reviewerToken: see [APIServer.ReviewerToken].
func (v *Vault) TrustAPIServer(ctx context.Context, mount string, server *APIServer, reviewerToken string) error {
	_, err := v.Write(ctx, "auth/"+mount+"/config", map[string]any{
		"kubernetes_host":      server.Address,
		"kubernetes_ca_cert":   string(server.CA),
		"token_reviewer_jwt":   reviewerToken,
		"disable_local_ca_jwt": true, // Vault does not run in a pod
	})
	return err
}

// TrustIssuer makes the jwt auth method at mount (such as "jwt") accept tokens of the
// issuer.
func (v *Vault) TrustIssuer(ctx context.Context, mount string, issuer *JWTIssuer) error {
	_, err := v.Write(ctx, "auth/"+mount+"/config", map[string]any{
		"jwt_validation_pubkeys": []string{issuer.PublicKeyPEM()},
		"bound_issuer":           issuer.Issuer,
	})
	return err
}

// A Role is a role of an auth method.
type Role struct {
	// Mount of the auth method, of type kubernetes or jwt. Default: kubernetes.
	Mount string
	// Name of the role. Default: the name of the service account.
	Name string
	// Namespace and ServiceAccount of the pods that can log in. Required.
	Namespace, ServiceAccount string
	// Audience that their tokens must have. Default: vault.
	Audience string
	// Policies of the Vault tokens.
	Policies []string
}

// AllowLogin creates a role with batch tokens, which Vault does not store. Both kinds of
// mounts record the namespace of the service account in the metadata of the login, as
// service_account_namespace.
func (v *Vault) AllowLogin(ctx context.Context, role Role) error {
	if role.Namespace == "" || role.ServiceAccount == "" {
		return errors.New("making a role: it needs a namespace and a service account")
	}
	if role.Mount == "" {
		role.Mount = "kubernetes"
	}
	if role.Name == "" {
		role.Name = role.ServiceAccount
	}
	if role.Audience == "" {
		role.Audience = "vault"
	}
	data := map[string]any{"token_policies": role.Policies, "token_type": "batch", "token_ttl": "20m"}

	mount, err := v.Read(ctx, "sys/auth/"+role.Mount)
	if err != nil {
		return fmt.Errorf("making the role %s: %w", role.Name, err)
	}
	switch mount["type"] {
	case "kubernetes":
		data["bound_service_account_names"] = role.ServiceAccount
		data["bound_service_account_namespaces"] = role.Namespace
		data["audience"] = role.Audience
	case "jwt":
		data["role_type"] = "jwt"
		data["user_claim"] = "sub"
		data["bound_subject"] = Subject(role.Namespace, role.ServiceAccount)
		data["bound_audiences"] = role.Audience
		data["claim_mappings"] = map[string]string{
			"/kubernetes.io/namespace":           "service_account_namespace",
			"/kubernetes.io/serviceaccount/name": "service_account_name",
		}
	default:
		return fmt.Errorf("making the role %s: the auth method at %s is of type %v", role.Name, role.Mount, mount["type"])
	}
	_, err = v.Write(ctx, "auth/"+role.Mount+"/role/"+role.Name, data)
	return err
}
