// Package podtoken reads what a Kubernetes service account token says about
// itself: whose it is, which pod it is bound to, and when it expires.
//
// It verifies no signature. Only the server that the token is shown to (Vault, the
// API server) can tell whether the claims are true. They may be used to refuse a
// token, or to name it in a log after that server has accepted it, but never to
// grant anything.
package podtoken

import (
	"errors"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// ErrMalformed means that a text is not a service account token as the API server
// issues them: a signed JSON web token with the claims of a service account.
var ErrMalformed = errors.New("not a Kubernetes service account token")

// algorithms are those that a JSON web token can be signed with using a key pair.
// The API server has used RS256 and ES256 to ES512; an external signer (KEP-740)
// may use others. "none" and the shared-key algorithms are not among them.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512,
	jose.PS256, jose.PS384, jose.PS512, jose.EdDSA,
}

// Claims are the unverified claims of a service account token.
type Claims struct {
	Namespace         string
	ServiceAccount    string
	ServiceAccountUID string
	Pod               string // empty for a token that is bound to no pod
	PodUID            string
	Expires           time.Time // zero if the token does not say
}

// Parse returns the claims of a token. The error is [ErrMalformed] and repeats
// nothing of the token.
func Parse(token string) (Claims, error) {
	parsed, err := jwt.ParseSigned(token, algorithms)
	if err != nil {
		return Claims{}, ErrMalformed
	}
	var all struct {
		Expires    *jwt.NumericDate `json:"exp"`
		Kubernetes struct {
			Namespace      string `json:"namespace"`
			ServiceAccount object `json:"serviceaccount"`
			Pod            object `json:"pod"`
		} `json:"kubernetes.io"`
	}
	if err := parsed.UnsafeClaimsWithoutVerification(&all); err != nil {
		return Claims{}, ErrMalformed
	}
	c := Claims{
		Namespace:         all.Kubernetes.Namespace,
		ServiceAccount:    all.Kubernetes.ServiceAccount.Name,
		ServiceAccountUID: all.Kubernetes.ServiceAccount.UID,
		Pod:               all.Kubernetes.Pod.Name,
		PodUID:            all.Kubernetes.Pod.UID,
	}
	if all.Expires != nil {
		c.Expires = all.Expires.Time()
	}
	if c.Namespace == "" || c.ServiceAccount == "" || c.ServiceAccountUID == "" {
		return Claims{}, ErrMalformed
	}
	return c, nil
}

// object names a Kubernetes object in the private claims.
type object struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}
