package testenv

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"time"
)

// A JWTIssuer signs tokens like those that the kubelet gets for a pod, for tests without
// an API server. They have the claims of real tokens. Their algorithm is ES256, while most
// API servers have an RSA key.
//
// It is safe for concurrent use.
type JWTIssuer struct {
	// Issuer is the "iss" of its tokens.
	Issuer string

	key       *ecdsa.PrivateKey
	publicKey string
}

// NewJWTIssuer returns an issuer with a new key.
func NewJWTIssuer() (*JWTIssuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key of a token issuer: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("making the key of a token issuer: %w", err)
	}
	return &JWTIssuer{
		Issuer:    "https://kubernetes.default.svc.cluster.local",
		key:       key,
		publicKey: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
	}, nil
}

// PublicKeyPEM returns the key that verifies the tokens.
func (i *JWTIssuer) PublicKeyPEM() string { return i.publicKey }

// Token returns a token for a pod of the service account that is valid for ttl. With a
// negative ttl it has expired. Tokens for the same service account have the same uid.
func (i *JWTIssuer) Token(namespace, serviceAccount, audience string, ttl time.Duration) string {
	return i.Sign(i.Claims(namespace, serviceAccount, audience, ttl))
}

// Claims returns the claims of [JWTIssuer.Token], for tests that change them.
func (i *JWTIssuer) Claims(namespace, serviceAccount, audience string, ttl time.Duration) map[string]any {
	now := time.Now()
	issued := now
	if ttl < 0 {
		issued = now.Add(2 * ttl)
	}
	pod := serviceAccount + "-0"
	return map[string]any{
		"iss": i.Issuer,
		"sub": Subject(namespace, serviceAccount),
		"aud": []string{audience},
		"iat": issued.Unix(),
		"nbf": issued.Unix(),
		"exp": now.Add(ttl).Unix(),
		"jti": uid("token", namespace, serviceAccount, rand.Text()),
		"kubernetes.io": map[string]any{
			"namespace":      namespace,
			"serviceaccount": map[string]any{"name": serviceAccount, "uid": uid("serviceaccount", namespace, serviceAccount)},
			"pod":            map[string]any{"name": pod, "uid": uid("pod", namespace, pod)},
			"node":           map[string]any{"name": "node-0", "uid": uid("node", "", "node-0")},
		},
	}
}

// PodToken is like [JWTIssuer.Token], for the given pod.
func (i *JWTIssuer) PodToken(namespace, pod, podUID, serviceAccount, audience string, ttl time.Duration) string {
	claims := i.Claims(namespace, serviceAccount, audience, ttl)
	claims["kubernetes.io"].(map[string]any)["pod"] = map[string]any{"name": pod, "uid": podUID}
	return i.Sign(claims)
}

// Sign returns a token with the claims.
func (i *JWTIssuer) Sign(claims map[string]any) string {
	signed := segment(map[string]any{"alg": "ES256", "typ": "JWT"}) + "." + segment(claims)
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, digest[:])
	if err != nil {
		panic(fmt.Sprintf("signing a token with a key made for it: %v", err))
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// Subject returns the "sub" of a service account's tokens, which is its user name.
func Subject(namespace, serviceAccount string) string {
	return "system:serviceaccount:" + namespace + ":" + serviceAccount
}

func segment(content map[string]any) string {
	text, err := json.Marshal(content)
	if err != nil {
		panic(fmt.Sprintf("claims that are no JSON: %v", err))
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// uid returns a UUID that depends only on the parts.
func uid(parts ...string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", parts))
	id := sum[:16]
	id[6] = id[6]&0x0f | 0x80 // version 8: custom
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
