//! Asks the API server whose a token is. Each time anew: an answer that was kept would outlive the token, or the pod.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Client;
use kube::api::{Api, PostParams};
use sealedenv_delivery::{AUDIENCE, Token};
use zeroize::Zeroize as _;

/// Reviews a token for our audience.
///
/// # Errors
/// The API server refused to look, or did not answer. That says nothing about the token.
pub(crate) async fn review(client: &Client, token: &Token) -> Result<TokenReviewStatus, kube::Error> {
    let mut review = TokenReview {
        spec: TokenReviewSpec {
            token: Some(token.expose().to_owned()),
            audiences: Some(vec![AUDIENCE.to_owned()]),
        },
        ..TokenReview::default()
    };
    let reviews: Api<TokenReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await;
    wipe(&mut review);
    let mut answer = answer?;
    wipe(&mut answer); // the API server repeats the question
    Ok(answer.status.unwrap_or_default())
}

fn wipe(review: &mut TokenReview) {
    review.spec.token.zeroize();
}
